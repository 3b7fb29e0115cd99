"""Every recipe trains three steps, saves, loads, is judged and is drawn from; those of `KINDS` with every sampler."""

import json
import shutil
from itertools import islice

import pytest
import torch
from command import TINY, newest, refused, succeeds, write_text

from pretrained_models import write_model
from remask.config.build import valid_samplers
from remask.data.corpora import open_corpus
from remask.finished import open_model
from remask.recipes import recipe_names

PRETRAINED = [name for name in recipe_names() if name.startswith(("convert-", "sft-"))]
TASKS = [
    name for name in recipe_names() if name.startswith(("sudoku-", "countdown-", "arithmetic-", "multiplication-"))
]
EQUATIONS = [name for name in recipe_names() if name.startswith("gsm8k-eq-")]  # of pairs that a file holds
CONCEPTS = (
    "concept-weighted",
    "concept-perceiver",
    "concept-posonly",
    "concept-tsdae",
    "concept-contrastive",
    "concept-context",
    "concept-company",
)
IN_CONTEXT = ("concept-context", "concept-company")
PAIRS = ("concept-sentences", "concept-stretches")
OWN_FIGURES = [name for name in recipe_names() if name.startswith((*CONCEPTS, *PAIRS))]
LATENT = ("concept-autoencoder", "concept-prior")  # the second stands on the first: test_latent_recipes.py
THOUGHTS = [name for name in recipe_names() if name.startswith("thought-")]  # behind questions: test_thought_recipes.py
APART = (*PRETRAINED, *TASKS, *EQUATIONS, *OWN_FIGURES, *LATENT, *THOUGHTS)
SCRATCH = [name for name in recipe_names() if name not in APART]
KINDS = ("ar", "mdlm", "bd3lm", "gidd", "udlm", "sedd-uniform", "concept-diffusion")
"""Recipes that are drawn from with every sampler that fits them; of the others one is tried."""
OWN_SAMPLERS = {"bijective": "bijective", "proofread": "proofreading"}
LARGE = [name for name in SCRATCH if "-h512" in name]
SMALL = [*TINY, "training.micro_batch_size=2"]


def small_blocks(name: str) -> list[str]:
    """What a recipe with blocks of tokens, or with a list of its layers, needs besides `SMALL`."""
    if name == "bijective-hybrid":
        return ["network.layers=4"]
    if name.startswith("concept-diffusion"):
        large = ["data.config=null", "training.precision=float32"] if name in LARGE else []
        return ["data.prefix=8", "data.stride=8", "network.concepts=4", "network.decoder_layers=1", *large]
    if not name.endswith("bd3lm"):
        return []
    return ["objective.block_length=4", "sampling.block_length=4", "sampling.steps=2"]


def samplers_of(name: str, model) -> list[str]:
    """Those by which the test of a recipe draws."""
    valid = valid_samplers(model)
    return valid if name in KINDS else [OWN_SAMPLERS.get(name, valid[0])]


def nats_per_token(done) -> float:
    return next(line["value"] for line in done.objects if line["name"] == "nats_per_token")


@pytest.mark.parametrize("name", SCRATCH)
def test_a_recipe_trains_saves_loads_samples_and_is_judged(home, text, name):
    succeeds("train", name, *SMALL, *small_blocks(name), "tokenizer.kind=byte", f"data.source={text}")
    record, _folder = newest(home)
    assert (record.status, record.step) == ("finished", 3)
    assert 0 < nats_per_token(succeeds("evaluate", "last", "--task", "likelihood", "--json")) < 30
    model, _ = open_model("last", device=torch.device("cpu"))
    prompt = ["--prompt", "the list"] if name.startswith("concept-diffusion") else []
    for sampler in samplers_of(name, model):
        (line,) = succeeds("sample", "last", *prompt, "--sampler", sampler, "--json").objects
        assert line["sampler"] == sampler
        assert len(line["ids"]) == 16
        assert model.mask_id not in line["ids"]


@pytest.mark.parametrize("name", OWN_FIGURES)
def test_a_recipe_without_a_likelihood_trains_saves_loads_and_is_judged_by_its_own_figure(home, text, tmp_path, name):
    small = [part for part in SMALL if not part.startswith("training.micro_batch_size")]
    if name in IN_CONTEXT:
        small += ["training.precision=float32", "network.width=48", "network.mlp_width=32"]
    if name in PAIRS:
        sides = [{"a": f"Up {k}", "b": f"on {k}"} for k in range(60)]
        text = tmp_path / "pairs.jsonl"
        text.write_text("\n".join(map(json.dumps, sides)))
    tokenizer = "tokenizer.vocab_size=270" if name in PAIRS else "tokenizer.kind=byte"
    succeeds("train", name, *small, tokenizer, f"data.source={text}")
    record, folder = newest(home)
    assert (record.status, record.step) == ("finished", 3)
    (figure,) = succeeds("evaluate", "last", "--json").objects
    assert figure["name"] in ("hidden_nats_per_token", "reconstruction_nats_per_token", "matching_nats")
    assert 0 < figure["value"] < 30
    assert figure["trivial"]
    if name in IN_CONTEXT:  # whose rows lie in a document each
        assert figure["protocol"]["errors_over"].endswith(" documents")
    assert newest(home)[0].headline[figure["name"]] == figure["value"]
    lines = [line for line in folder.metrics() if line["kind"] in ("train", "validation", "trivial")]
    assert not any("bits_per_byte" in line or "nats_per_token" in line for line in lines)
    if name in (*IN_CONTEXT, "concept-stretches"):
        assert "rows have all" in refused("evaluate", "last", "--task", "concepts")


def in_context(text, *network):
    """Trains `concept-context` small."""
    small = [part for part in SMALL if not part.startswith("training.micro_batch_size")]
    small += ["network.width=32", "network.mlp_width=32", "training.precision=float32", "tokenizer.kind=byte"]
    succeeds("train", "concept-context", *small, *network, f"data.source={text}")


def test_concepts_that_are_tokens_have_no_slots_to_compare(home, text):
    in_context(text, "network.encoder=tokens", "network.decoder=position_only", "network.rarity=null")
    assert "there is nothing to measure" in refused("evaluate", "last", "--task", "concepts")


def test_tokens_share_concepts_that_read_masks_and_what_of_them_varies_is_measured(home, text):
    in_context(text, "network.concepts=4")
    figures = {line["name"]: line for line in succeeds("evaluate", "last", "--task", "concepts", "--json").objects}
    assert figures["effective_rank"]["value"] > 1
    assert 0 < figures["input_share"]["value"] < 1
    assert figures["slot_cosine_max"]["value"] < 1


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_trained_judged_and_answered(home, name):
    small = [part for part in SMALL if not part.startswith(("data.length", "evaluation.rows"))]
    succeeds("train", name, *small, "data.max_documents=60", "evaluation.rows=4")
    answers = succeeds("evaluate", "last", "--task", "answers", "--count", "4", "--json").objects
    (accuracy,) = [line for line in answers if line["name"] == "answers_right"]
    assert accuracy["trivial"]
    assert 0 <= accuracy["value"] <= 1


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations_of_a_file_are_learned_and_answered_as_gsm8k_is(home, tmp_path, name):
    folder = tmp_path / "gsm8k_eq"
    folder.mkdir()
    lines = [f"Ann has {a} and buys {b}. How many?||<<{a}+{b}={a + b}>> #### {a + b}" for a in range(9) for b in (2, 5)]
    for split in ("train", "test"):
        (folder / f"{split}.txt").write_text("\n".join(lines))
    small = [part for part in SMALL if not part.startswith("data.length")]
    own = ["tokenizer.kind=byte", "data.length=64", "data.separator='||'", f"data.source={folder / 'train.txt'}"]
    succeeds("train", name, *small, *own)
    asked = ["--reasoning", tmp_path, "--reasoning-limit", "3"]
    done = succeeds("evaluate", "last", "--task", "gsm8k_eq", *asked, "--json")
    figures = {line["name"]: line for line in done.objects}
    for figure in (figures["accuracy_strict"], figures["accuracy_flexible"]):
        assert figure["n"] == 3
        assert figure["trivial"]
        assert 0 <= figure["value"] <= 1


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """A random Qwen3 of two layers, with a byte tokenizer of its own."""
    return write_model(tmp_path_factory.mktemp("backbone"), "qwen3")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [{"prompt": f"{a}+{b}=", "response": str(a + b)} for a in range(10) for b in range(6)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_recipe_on_a_pretrained_model_trains_saves_loads_and_samples(home, backbone, pairs, tmp_path, name):
    source = pairs if name.startswith("sft-") else write_text(tmp_path / "text.txt")
    copy = tmp_path / "backbone"
    shutil.copytree(backbone, copy)
    small = [part for part in SMALL if not part.startswith("network.")]
    blocks = ["sampling.block_length=null"] if name == "sft-mdlm" else small_blocks(name)
    where = [f"network.name={copy}", f"tokenizer.name={copy}", f"data.source={source}"]
    succeeds("train", name, *small, *blocks, *where)
    shutil.rmtree(copy)  # the saved model needs nothing but its own folder
    assert 0 < nats_per_token(succeeds("evaluate", "last", "--task", "likelihood", "--json")) < 60
    prompt = ["--prompt", "3+4="] if name.startswith("sft-") else []
    (line,) = succeeds("sample", "last", *prompt, "--json").objects
    assert len(line["ids"]) == 16


def test_a_checker_is_asked_about_the_prompt_as_the_source_has_it(home, tmp_path, monkeypatch):
    """The separator behind each prompt is for the model; a checker that saw it would call every answer wrong."""
    puzzles = list(islice(open_corpus("sudoku4", cache=tmp_path / "cache").pairs("train"), 60))
    solutions = {pair.prompt + ":": pair.response for pair in puzzles}
    lines = [{"puzzle": pair.prompt, "solution": pair.response} for pair in puzzles]
    (tmp_path / "puzzles.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def answer(model, sampler, prompt, **rest):
        asked = [model.tokenizer.decode(row[:17]) for row in prompt.ids.tolist()]
        return torch.stack(
            [
                torch.tensor([*model.tokenizer.encode(text + solutions[text]).ids, model.tokenizer.eos_id])
                for text in asked
            ]
        )

    small = [part for part in SMALL if not part.startswith("data.length")]
    pairs = ["data.source=puzzles.jsonl", "data.prompt_key=puzzle", "data.response_key=solution", "data.separator=':'"]
    succeeds("train", "sudoku-mdlm", *small, *pairs, "evaluation.checker=sudoku4")
    monkeypatch.setattr("remask.judgement.answers.generate", answer)
    answers = succeeds("evaluate", "last", "--task", "answers", "--split", "validation", "--json").objects
    assert {line["name"]: line["value"] for line in answers} == {
        "answers_right": 1.0,
        "answers_equal": 1.0,
        "answers_ended": 1.0,
    }


def test_the_load_and_the_cost_of_experts_are_on_record(home, text):
    succeeds("train", "mdlm-moe", *SMALL, "tokenizer.kind=byte", f"data.source={text}")
    record, folder = newest(home)
    lines = [line for line in folder.metrics() if line["kind"] == "train"]
    assert lines
    assert all(1 / 8 == line["expert_load_even"] <= line["expert_load"] <= 1 / 2 for line in lines)
    assert record.active_parameters < record.parameters
    assert record.flops_per_token > 0


def test_proofreading_can_start_from_a_plain_denoiser(home, text):
    common = [*SMALL, "tokenizer.kind=byte", f"data.source={text}"]
    succeeds("train", "mdlm", *common)
    first, _ = newest(home)
    succeeds("train", "proofread", *common, f"training.start_from={first.id}", "training.learning_rate=1e-12")
    record, _ = newest(home)
    assert record.lineage == [{"how": "initialised", "from": f"{first.id}/model"}]
    plain, proofreading = (open_model(run, device=torch.device("cpu"))[0].network for run in (first.id, record.id))
    theirs = dict(proofreading.network.named_parameters())
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(theirs[name], weight, atol=0.2, rtol=0.0)
    torch.testing.assert_close(theirs["embedding.weight"], plain.embedding.weight, atol=1e-6, rtol=0.0)
