"""Models that give text no likelihood: judged by a figure of their own, and never taken for more."""

import shutil

import pytest
from command import TINY, newest, refused, succeeds

from remask.cli.sample import refuse_without_likelihood
from remask.config.load import load_recipe
from remask.errors import UserError
from remask.health import verdict
from remask.materials import check_processes

SMALL = [*TINY, "tokenizer.kind=byte", "network.concepts=2"]
FIGURE = "reconstruction_nats_per_token"


@pytest.fixture(scope="module")
def finished_tsdae(tmp_path_factory, cache, text):
    """A home with a finished run of recipe concept-tsdae."""
    home = tmp_path_factory.mktemp("own") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMASK_HOME", str(home))
        patch.setenv("REMASK_CACHE", str(cache))
        succeeds("train", "concept-tsdae", *SMALL, f"data.source={text}")
    return home


@pytest.fixture
def tsdae(home, finished_tsdae):
    """A home of this test's own with that run."""
    shutil.copytree(finished_tsdae, home)
    return home


def test_its_record_has_its_own_figure_beside_trivial_ones_and_no_likelihood(tsdae) -> None:
    record, folder = newest(tsdae)
    assert FIGURE in record.headline
    assert not {"bits_per_byte", "nats_per_token"} & set(record.headline)
    assert {"uniform", "unigram", "byte 2-gram"} <= set(record.trivial)
    assert "nats/token of reconstruction" in record.verdict
    lines = folder.metrics()
    (shown,) = [line for line in lines if line["kind"] == "sample"]
    assert shown["what"] == "reconstruction of a held-out row"
    assert not folder.samples()


def test_evaluate_gives_the_figure_its_protocol_and_pairs(tsdae) -> None:
    (figure,) = succeeds("evaluate", "last", "--json").objects
    assert (figure["name"], figure["unit"], figure["n"]) == (FIGURE, "nats/token of reconstruction", 4)
    assert figure["protocol"]["told"] == "share 0.6"
    assert "likelihood" not in figure["protocol"]
    record, _ = newest(tsdae)
    assert record.headline[FIGURE] == figure["value"]
    again = succeeds("evaluate", "last", "--seed", "5", "--json").objects[0]
    assert again["value"] != figure["value"]
    assert newest(tsdae)[0].headline[FIGURE] == figure["value"], "another seed is no headline"


@pytest.mark.parametrize("task", ["likelihood", "levels", "quality", "answers", "exact-likelihood"])
def test_tasks_of_likelihoods_and_samples_are_refused(tsdae, task) -> None:
    assert "no likelihood" in refused("evaluate", "last", "--task", task).replace("is no", "no")


def test_samples_are_refused_in_one_line(tsdae) -> None:
    assert "draws none of its own" in refused("sample", "last")


def test_a_model_without_a_decoder_is_not_said_to_write_anything() -> None:
    """Nor to have reconstructions to look at."""
    with pytest.raises(UserError, match="compares texts and writes none"):
        refuse_without_likelihood(load_recipe("concept-sentences", ["data.source=python-docs"]))


def test_a_model_with_a_likelihood_is_not_judged_by_reconstruction(trained) -> None:
    assert "--task likelihood" in refused("evaluate", "last", "--task", "reconstruction")


def test_the_report_the_log_and_the_list_say_what_the_figure_is(tsdae) -> None:
    record, _ = newest(tsdae)
    value = f"{record.headline[FIGURE]:.2f}"[:-1]
    succeeds("report", "last", "--html", "page.html")
    page = (tsdae.parent / "page.html").read_text()
    assert f"{value}" in page
    assert "It is no likelihood" in page
    assert "bits per byte</strong>" not in page
    assert "reconstruction of a held-out row" in page
    row = next(line for line in succeeds("log").out.splitlines() if line.startswith("|") and record.id in line)
    assert "nats/token of reconstruction (unigram" in row
    assert "≤" not in row
    (listed,) = [line for line in succeeds("runs").out.splitlines() if record.id in line]
    assert listed.split()[3:5] == ["–", "–"]


def test_a_sweep_ranks_trials_by_the_figure_that_they_have(home, text) -> None:
    words = ["concept-tsdae", *SMALL, f"data.source={text}", "--over", "training.learning_rate=1e-3,2e-3"]
    assert f"give --metric {FIGURE}" in refused("sweep", *words)


def test_several_processes_are_refused_where_rows_are_compared() -> None:
    """Before a run exists; a likelihood bound goes on."""
    check_processes(load_recipe("concept-tsdae", []), 2)
    with pytest.raises(UserError, match="concept_contrastive compares all rows"):
        check_processes(load_recipe("concept-contrastive", []), 2)
    with pytest.raises(UserError, match="spread"):
        check_processes(load_recipe("concept-tsdae", ["objective.diversity.spread=0.1"]), 2)


def judged(value: float, trivial: dict[str, float], name: str = FIGURE):
    """The verdict on a run of 300 steps that ended at a figure."""
    common = {"learning_rate": 1e-3, "gradient_norm": 1.0}
    lines = [{"kind": "trivial", "step": 0, name: trivial}]
    lines += [{"kind": "train", "step": step, "loss": 6.0 - step / 100, **common} for step in range(10, 310, 10)]
    return verdict([*lines, {"kind": "validation", "step": 300, name: value, "stderr": 0.01, "rows": 64}])


TEXT = {"uniform": 6.9, "unigram": 5.5, "byte 1-gram": 6.5, "byte 2-gram": 5.0, "byte 3-gram": 4.0}


def test_a_reconstruction_at_the_unigram_has_not_learned() -> None:
    found = judged(5.49, TEXT)
    assert (found.level, found.sentence.partition(":")[0]) == ("trivial", "has not learned")


def test_a_reconstruction_below_the_bigram_learns_and_is_said_to_be_no_likelihood() -> None:
    found = judged(3.0, TEXT)
    assert found.level == "learns"
    assert found.sentence.startswith("learns: 3.00 nats/token of reconstruction, 2.00 below the byte bigram (5.00)")
    assert "no likelihood" in found.sentence


def test_a_reconstruction_that_costs_nothing_is_no_broken_run() -> None:
    """An encoder may hand the whole text on; a likelihood of zero would be a mistake."""
    assert judged(0.0005, TEXT).level == "learns"


def test_matching_is_held_against_an_equal_guess() -> None:
    found = judged(3.45, {"equal guess": 3.466}, name="matching_nats")
    assert (found.level, found.sentence.partition(":")[0]) == ("trivial", "has not learned")
    found = judged(1.0, {"equal guess": 3.466}, name="matching_nats")
    assert found.sentence.startswith("learns: 1.00 nats of matching, 2.47 below an equal guess (3.47); no likelihood")


def test_what_tells_texts_apart_no_better_than_their_words_has_not_learned() -> None:
    """Views share words, so that a network with weights at random lies far below an equal guess."""
    found = judged(1.0, {"equal guess": 3.466, "words in common": 0.9}, name="matching_nats")
    assert (found.level, found.sentence) == (
        "trivial",
        "has not learned: 1.00 nats of matching is no better than words in common (0.90)",
    )
    (why,) = (each for each in found.findings if "loss at its trivial value" in each)
    assert "Usual cause: texts are told apart by the words that they share alone. Try: views that share fewer" in why
    found = judged(0.6, {"equal guess": 3.466, "words in common": 0.9}, name="matching_nats")
    assert found.sentence.startswith("learns: 0.60 nats of matching, 0.30 below words in common (0.90)")


CLASHES = {
    "concept-tsdae data.prefix=null": "data.prefix: null given, but rows then hold parts of several documents",
    "concept-contrastive training.micro_batch_size=8": "objective concept_contrastive compares all rows of a step",
    "concept-contrastive objective.views=sides": "the text has no pairs, whose sides could be compared",
    "concept-contrastive data.prefix=4": "what is given would stand whole in both views",
    "concept-contrastive objective.share=0.5": "views of kind halves delete nothing",
    "concept-tsdae training.micro_batch_size=8 objective.diversity.spread=0.1": "objective.diversity (spread)",
    "concept-contrastive training.batch_size=1": "compares the rows of a step",
    "concept-contrastive evaluation.batch_size=8": "judges a row among the 32 of its batch",
    "concept-contrastive network.encoder=none network.decoder=denoising": "no concept to tell texts apart by",
    "concept-contrastive objective.reconstruction_weight=0": "nothing would train the decoder",
    "concept-contrastive network.decoder=none": "a network without a decoder writes nothing",
    "concept-tsdae network.decoder=none": "objective concept_tsdae reads what a decoder writes",
    "concept-contrastive network.decoder=none objective.reconstruction_weight=0 network.freeze_encoder=true": "left",
    "concept-contrastive network.decoder=none objective.reconstruction_weight=0 network.latent_width=8": "between",
    "concept-diffusion objective.diversity.weights=learned": "no term of diversity weighs anything",
    "concept-diffusion network.encoder=mean": "no two concepts to choose from",
    "concept-diffusion data.prefix=0": "nothing that is given, for concepts to be read from",
    "concept-diffusion network.freeze_encoder=true objective.diversity.spread=0.1": "a frozen encoder cannot follow",
    "concept-diffusion training.prompt_dropout=0.1 objective.diversity.spread=0.1": "rows without their prompt",
    "concept-diffusion network.encoder=tokens objective.diversity.spread=0.1 objective.nested_share=0": "fixed number",
    "concept-diffusion process.kind=uniform": "process.kind: uniform given",
    "mdlm objective.kind=concept_tsdae": "objective concept_tsdae is of networks that read a source",
}


@pytest.mark.parametrize("words", CLASHES)
def test_keys_that_do_not_go_together_are_refused(words) -> None:
    name, *changes = words.split()
    with pytest.raises(UserError) as raised:
        load_recipe(name, changes)
    assert CLASHES[words] in str(raised.value)
