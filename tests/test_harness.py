"""lm-evaluation-harness on remask models: likelihoods that are what they are called, and whole tasks offline."""

import importlib
import json
import math
import sys
from dataclasses import replace

import lm_eval
import lm_eval.__main__
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from exact import all_sequences, chi_squared
from remask.config.build import build_model
from remask.config.saved import save_model
from remask.config.schema import Recipe
from remask.errors import UserError
from remask.harness import RemaskLM, scoring
from remask.harness.__main__ import main, with_device
from remask.harness.language_model import _windows
from remask.harness.scoring import Continuation
from remask.model import Model
from remask.objectives import LikelihoodBound, NextToken, masking_integrand
from remask.processes import Masking, Uniform
from remask.randomness import draw_categorical, keyed_generator
from remask.samplers import Prompt, ancestral, blockwise
from remask.schedules import Linear, LogLinear
from remask.tokenizers import ByteTokenizer, CharacterTokenizer
from tiny import tiny_network

ALPHABET = CharacterTokenizer("ab")  # ids 0 and 1, end of text 2, mask 3
PROCESS = Masking(schedule=Linear(), vocab_size=4, mask_id=3)
BOUND = LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-3)
EVERY = [Continuation(context=(1, 0), ids=tuple(ids)) for ids in all_sequences([0, 1, 2], 3).tolist()]


def toy_model(*, causal: bool = False) -> Model:
    network = tiny_network(vocab_size=4, causal=causal).double()
    with torch.no_grad():
        for parameter in network.parameters():  # far from uniform
            parameter.mul_(4.0)
    process, objective = (None, NextToken(mask_id=3)) if causal else (PROCESS, BOUND)
    return Model(network=network.eval(), process=process, objective=objective, tokenizer=ALPHABET, length=8)


def probabilities(nats) -> torch.Tensor:
    return torch.tensor(nats, dtype=torch.float64).neg().exp()


# ── scores ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("causal", [False, True])
def test_ordered_likelihoods_of_all_continuations_sum_to_one(causal):
    nats, _ = scoring.ordered_nats(toy_model(causal=causal), EVERY)
    assert abs(float(probabilities(nats).sum()) - 1.0) < 1e-10


def test_a_score_that_peeks_at_later_tokens_does_not_sum_to_one(monkeypatch):
    def peeking(model, batch, here):
        t = torch.ones(len(batch), dtype=torch.float64)
        z = batch.ids.masked_fill(here, model.mask_id)
        logits = model.network(z, t, segments=batch.segments, positions=here)
        return model.process.log_clean(logits)

    monkeypatch.setattr(scoring, "_log_next", peeking)
    nats, _ = scoring.ordered_nats(toy_model(), EVERY)
    assert abs(float(probabilities(nats).sum()) - 1.0) > 1e-3


def test_the_ordered_likelihood_is_the_law_of_drawing_one_token_a_call_from_the_left():
    model = toy_model()
    p = probabilities(scoring.ordered_nats(model, EVERY)[0]).numpy()
    generator = keyed_generator(3)
    z = torch.tensor([[1, 0, 3, 3, 3]]).repeat(3000, 1)
    for i in range(2, 5):
        here = torch.zeros_like(z, dtype=torch.bool)
        here[:, i] = True
        logits = model.logits(z, torch.ones(3000, dtype=torch.float64), positions=here).detach()
        z[:, i] = draw_categorical(PROCESS.log_clean(logits).exp(), generator=generator)
    texts = all_sequences([0, 1, 2], 3)
    assert chi_squared(z[:, 2:].numpy(), texts, p) > 1e-4
    assert chi_squared(z[:, 2:].numpy(), texts, p[::-1].copy()) < 1e-4


@pytest.mark.parametrize("schedule", [Linear(), LogLinear(0.1)])
def test_scoring_asks_the_network_just_what_the_block_wise_sampler_of_one_token_asks(schedule):
    """Tokens and times: a network may read either."""

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.asked = tiny_network(vocab_size=4), []

        def forward(self, z, t, *, segments, positions):
            self.asked.append((z.tolist(), t.tolist(), positions.tolist()))
            return self.network(z, t, segments=segments, positions=positions)

    network = Watching()
    process = replace(PROCESS, schedule=schedule)
    model = Model(network=network, process=process, objective=BOUND, tokenizer=ALPHABET, length=8)
    ids = torch.tensor([[1, 0, 3, 3, 3]])
    prompt = Prompt(ids=ids, fixed=ids != 3)
    generator = keyed_generator(3)
    z = blockwise(model, [1.0, 0.0], prompt=prompt, generator=generator, block_length=1, walk=ancestral)
    drawn, network.asked = network.asked, []
    scoring.ordered_nats(model, [Continuation(context=(1, 0), ids=tuple(z[0, 2:].tolist()))])
    assert len(drawn) == 3
    assert network.asked == drawn


def test_an_autoregressive_model_has_one_likelihood_both_ways():
    model = toy_model(causal=True)
    exact = scoring.objective_nats(model, EVERY, draws=1, generator=keyed_generator(0))
    assert torch.allclose(torch.tensor(exact), torch.tensor(scoring.ordered_nats(model, EVERY)[0]), atol=1e-9)


def test_a_uniform_predictor_pays_the_logarithm_of_the_vocabulary_for_each_token_and_nothing_for_the_context():
    model = toy_model()
    torch.nn.init.zeros_(model.network.head.weight)
    texts = [Continuation(context=(0,) * context, ids=(1,) * 3) for context in (0, 1, 4)]
    for nats in scoring.ordered_nats(model, texts)[0]:
        assert abs(nats - 3 * math.log(3)) < 1e-9
    bounds = scoring.objective_nats(model, texts, draws=100, generator=keyed_generator(1))
    for nats in bounds:
        assert abs(nats / (3 * math.log(3)) - 1.0) < 0.2


def test_a_score_does_not_depend_on_the_texts_beside_it():
    model = toy_model()
    texts = [Continuation(context=(0, 1), ids=(1,)), Continuation(context=(), ids=(0, 2, 1, 1)), EVERY[7]]
    together, greedy = scoring.ordered_nats(model, texts)
    for text, nats, same in zip(texts, together, greedy, strict=True):
        alone, agreed = scoring.ordered_nats(model, [text])
        assert abs(alone[0] - nats) < 1e-9
        assert agreed == [same]


@pytest.mark.parametrize("causal", [False, True])
def test_one_continuation_of_all_is_greedy_and_both_ways_of_asking_agree(causal):
    model = toy_model(causal=causal)
    greedy = scoring.ordered_nats(model, EVERY)[1]
    assert sum(greedy) == 1
    assert scoring.greedy_in_order(model, EVERY) == greedy


def test_a_context_loses_its_beginning_where_it_is_too_long_and_a_continuation_never_does():
    assert Continuation(context=(1, 2, 3), ids=(4, 5)).within(4) == Continuation(context=(2, 3), ids=(4, 5))
    assert Continuation(context=(1,), ids=(4, 5)).within(4).context == (1,)
    with pytest.raises(UserError, match="5 tokens is longer than the rows of 4"):
        Continuation(context=(1,), ids=(1, 2, 3, 4, 5)).within(4)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 23])
def test_windows_score_every_token_once_and_the_last_has_all_the_context_that_fits(count):
    windows = list(_windows(tuple(range(count)), 8))
    assert [token for window in windows for token in window.ids] == list(range(count))
    assert all(len(window) <= 8 for window in windows)
    assert len(windows[-1]) == min(count, 8)


def test_noise_that_replaces_tokens_has_no_order():
    assert scoring.has_order(toy_model())
    uniform = Uniform(schedule=Linear(), vocab_size=4, mask_id=3)
    assert not scoring.has_order(replace(toy_model(), process=uniform))


# ── the model type ─────────────────────────────────────────────────────────────────────────────────────────────


def recipe(**sections) -> Recipe:
    network = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}
    data = {"source": "python-docs", "length": 24}
    return Recipe.model_validate({"name": "tiny", "data": data, "network": network, **sections})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("harness") / "model"
    save_model(build_model(recipe(), ByteTokenizer(), device=torch.device("cpu")), recipe(), place)
    return str(place)


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    place = tmp_path_factory.mktemp("harness") / "model"
    noisy = recipe(process={"kind": "uniform"})
    save_model(build_model(noisy, ByteTokenizer(), device=torch.device("cpu")), noisy, place)
    return str(place)


def asked(kind: str, *arguments) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=given, idx=i) for i, given in enumerate(arguments)]


def test_figures_of_a_bound_repeat_and_name_their_draws(folder):
    requests = asked("loglikelihood", ("the cat", " sat"), ("", "so"), ("a ", "b"))
    model = RemaskLM(folder, draws=3, device="cpu")
    answers = model.loglikelihood(requests)
    assert answers == RemaskLM(folder, draws=3, device="cpu").loglikelihood(requests)
    assert all(-60 < value < 0 for value, _ in answers)
    assert "3 noise draws" in model.get_model_info()["likelihood"]
    ordered = RemaskLM(folder, likelihood="ordered", device="cpu")
    assert ordered.get_model_info()["likelihood"].startswith("exact")
    assert ordered.loglikelihood(requests) != answers


def test_a_text_is_as_likely_in_one_piece_as_by_its_continuation(folder):
    model = RemaskLM(folder, likelihood="ordered", device="cpu")
    ((whole, _),) = model.loglikelihood(asked("loglikelihood", ("", "the cat sat")))
    assert abs(model.loglikelihood_rolling(asked("loglikelihood_rolling", ("the cat sat",)))[0] - whole) < 1e-6
    assert model.loglikelihood_rolling(asked("loglikelihood_rolling", ("",))) == [0.0]


def test_blanks_before_a_word_belong_to_the_word(folder):
    model = RemaskLM(folder, device="cpu")
    assert model._continuation("a  ", "b") == model._continuation("a", "  b")
    assert model._continuation("a", "b").context == (97,)


def test_block_diffusion_is_scored_both_ways(tmp_path):
    blocks = recipe(
        objective={"kind": "block_diffusion", "block_length": 4},
        network={"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "attention": "block_causal"},
        sampling={"block_length": 4, "steps": 2},
    )
    save_model(build_model(blocks, ByteTokenizer(), device=torch.device("cpu")), blocks, tmp_path / "model")
    requests = asked("loglikelihood", ("the c", "at"), ("", "so"))  # neither fills whole blocks
    for likelihood in ("objective", "ordered"):
        model = RemaskLM(str(tmp_path / "model"), likelihood=likelihood, draws=20, device="cpu")
        for value, _ in model.loglikelihood(requests):
            assert 0.5 < value / (2 * -math.log(257)) < 2  # untrained: near a uniform predictor
    assert len(model.generate_until(asked("generate_until", ("abc", {"max_gen_toks": 6})))) == 1


def test_a_model_without_order_is_asked_greedily_and_refuses_the_ordered_likelihood(uniform):
    model = RemaskLM(uniform, draws=2, device="cpu", steps=3)
    drawn = model._draw([(97, 98)], 3, {"top_p": 1e-9})[0]
    same = Continuation(context=(97, 98), ids=tuple(drawn))
    other = Continuation(context=(97, 98), ids=(drawn[0], drawn[1], (drawn[2] + 1) % 256))
    assert model._drawn_greedily([same, other]) == [True, False]
    with pytest.raises(UserError, match="likelihood=objective"):
        RemaskLM(uniform, likelihood="ordered", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"likelihood": "exact"}, "Valid: objective, ordered"),
        ({"draws": 0}, "draws=0 was given"),
        ({"step": 4}, "did you mean 'steps'"),
        ({"sampler": "ancestrel"}, "sampling.sampler"),
        ({"batch_size": "many"}, "batch_size=many"),
    ],
)
def test_wrong_arguments_are_said_in_a_line(folder, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        RemaskLM(folder, device="cpu", **arguments)
    assert "\n" not in str(caught.value)


def test_generation_ends_at_the_first_stop_string_or_end_of_text(folder):
    model = RemaskLM(folder, device="cpu")
    text = [*b"one\n\ntwo stop", 256, *b"three"]
    assert model._until(text, []) == "one\n\ntwo stop"
    assert model._until(text, ["stop", "\n\n"]) == "one"
    assert model._until(text, ["four", ""]) == "one\n\ntwo stop"


def test_generation_is_greedy_unless_the_task_says_otherwise_and_fits_the_row(folder):
    model = RemaskLM(folder, device="cpu", steps=2)
    assert model._plan("abc", {})[2] == {"top_p": 1e-9}
    assert model._plan("abc", {"temperature": 0.0, "do_sample": True})[2] == {"top_p": 1e-9}
    assert model._plan("abc", {"do_sample": True, "temperature": 2})[2] == {"temperature": 2.0}
    assert model._plan("abc", {"max_gen_toks": 5, "until": "x"}) == ((97, 98, 99), 5, {"top_p": 1e-9}, ["x"])
    context, tokens, _, _ = model._plan("a" * 50, {"max_gen_toks": 50})
    assert (len(context), tokens) == (12, 12)
    with pytest.raises(UserError, match="num_beams"):
        model._plan("abc", {"num_beams": 2})
    answers = model.generate_until(asked("generate_until", ("ab", {"max_gen_toks": 4}), ("abc", {"max_gen_toks": 4})))
    assert len(answers) == 2


TASKS = {
    "colours": """
task: colours
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
""",
    "echo": """
task: echo
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["."], max_gen_toks: 4}
metric_list: [{metric: exact_match}]
""",
}


def test_whole_tasks_run_offline(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    documents = [{"question": f"sky {i}", "choices": [" red", " blue"], "answer": 1} for i in range(3)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, documents)))
    source = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/test.jsonl}}, cache_dir: {tmp_path}/cache}}
test_split: test
num_fewshot: 0
"""
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text + source)
    results = lm_eval.simple_evaluate(
        model="remask",
        model_args=f"run={folder},draws=2,steps=2,device=cpu",
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    assert 0 <= results["results"]["colours"]["acc,none"] <= 1
    assert 0 <= results["results"]["echo"]["exact_match,none"] <= 1
    assert "2 noise draws a continuation" in results["config"]["likelihood"]
    assert results["config"]["sampling"]["steps"] == 2


def test_without_the_harness_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.api.registry", None)
    monkeypatch.delitem(sys.modules, "remask.harness")
    with pytest.raises(UserError, match=r"pip install 'remask\[harness\]'"):
        importlib.import_module("remask.harness")


def test_the_command_says_a_mistake_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REMASK_HOME", str(tmp_path))
    monkeypatch.setattr(lm_eval.__main__, "cli_evaluate", lambda: get_model("remask")("nowhere"))
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("remask: ")
    assert said.count("\n") == 1


def test_the_command_takes_the_best_device_of_the_machine_where_none_is_named():
    assert with_device(["run", "--model", "remask"])[-2:] == ["--device", "auto"]
    for words in (["run", "--model", "remask", "--device", "cpu"], ["ls", "tasks"], ["--model=remask", "--device=cpu"]):
        assert with_device(words) == words


def test_a_device_in_the_model_s_arguments_comes_before_the_harness_s_own(folder):
    model = RemaskLM.create_from_arg_string(f"run={folder},device=cpu", {"device": "cuda:7", "batch_size": None})
    assert model.device.type == "cpu"
