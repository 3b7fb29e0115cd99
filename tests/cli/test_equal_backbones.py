"""A thought on a large model and its autoregressive equal: the documented command, and what is said of unlike ones."""

import json
import shlex
from pathlib import Path

import pytest
from command import newest, succeeds

from pretrained_models import write_mixture
from remask.config.load import load_recipe
from remask.config.schema import AdaptedSpec
from remask.reasoning_tasks.measuring import unlike
from remask.runs import Registry

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "qwen_moe.md"


def documented() -> list[str]:
    """The words behind `remask train sft-ar` of the document."""
    command = DOCUMENT.read_text(encoding="utf-8").split("remask train sft-ar ")[1].split("\nremask evaluate")[0]
    return shlex.split(command.replace("\\\n", " "))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("thought-t4", []),
        (
            "thought-gsm8k-a100",
            [
                *("data.length=320", "network.embeddings=device", "training.steps=3000"),
                *("training.micro_batch_size=16", "training.precision=bf16", "evaluation.batch_size=16"),
            ],
        ),
    ],
)
def test_the_documented_command_trains_the_autoregressive_equal_of_a_large_thought(name, changes):
    thought = load_recipe(name, ["data.source=gsm8k/train.jsonl"])
    equal = load_recipe("sft-ar", [*documented(), *changes])
    assert (equal.objective.kind, equal.network.attention) == ("next_token", "causal")
    for key in set(AdaptedSpec.model_fields) - {"kind"}:
        assert getattr(equal.network, key) == getattr(thought.network, key), key
    assert equal.tokenizer == thought.tokenizer
    assert equal.data == thought.data.model_copy(update={"pad": "none"})  # it ends a response by itself
    silent = {"prompt_dropout": 0.0, "log_every": equal.training.log_every}
    assert equal.training == thought.training.model_copy(update=silent)
    assert all(f"{key}={value}" in DOCUMENT.read_text() for key, value in (c.split("=") for c in changes))
    drawn = {"draws": equal.evaluation.draws}  # which an exact likelihood does not read
    assert equal.evaluation == thought.evaluation.model_copy(update=drawn)
    assert unlike(thought, equal) is None


def test_runs_on_other_models_or_in_other_bits_are_unlike_and_networks_of_our_own_are_not():
    ar = load_recipe("sft-ar", documented())
    whole = load_recipe("sft-ar", [*documented(), "network.quantisation=none", "network.embeddings=device"])
    assert unlike(ar, whole) == "network.quantisation=nf4 against none"
    other = load_recipe("sft-ar", ["data.source=x.jsonl", "network.name=some/model", "tokenizer.name=some/model"])
    said = "network.name=some/model against Qwen/Qwen1.5-MoE-A2.7B, network.quantisation=none against nf4"
    assert unlike(other, ar) == said
    small = load_recipe("mdlm", ["network.width=96"])
    assert unlike(small, load_recipe("ar")) is None
    assert unlike(ar, small) == (
        "network.name=Qwen/Qwen1.5-MoE-A2.7B against null, network.quantisation=nf4 against null, "
        "network.adaptation=lora against null"
    )


def test_a_thought_is_held_against_its_equal_and_with_a_caution_against_one_in_other_bits(home, tmp_path):
    pytest.importorskip("bitsandbytes")
    base = write_mixture(tmp_path / "qwen")
    place = tmp_path / "gsm8k"
    place.mkdir()
    rows = [{"question": f"{a}+{b}?", "answer": f"<<{a}+{b}>> #### {a + b}"} for a in range(8) for b in range(8)]
    for split, own in (("train", rows[8:]), ("test", rows[:8])):
        (place / f"{split}.jsonl").write_text("\n".join(map(json.dumps, own)))
    tiny = [f"network.name={base}", f"tokenizer.name={base}", "data.length=24", "network.lora_rank=4"]
    tiny += ["training.steps=2", "training.batch_size=4", "training.micro_batch_size=2", "training.evaluate_rows=4"]
    tiny += ["evaluation.rows=4", "evaluation.draws=1", "sampling.count=1", "training.precision=float32"]
    for name, whole in (("equal", []), ("whole", ["network.quantisation=none", "network.embeddings=device"])):
        succeeds("train", "sft-ar", *documented(), *tiny, *whole, f"name={name}")
    succeeds("train", "thought-t4", "data.source=gsm8k/train.jsonl", *tiny, "sampling.steps=2")
    asked = ["evaluate", "last", "--task", "gsm8k", "--reasoning", ".", "--reasoning-limit", 2, "--json"]
    done = succeeds(*asked, "--against", "equal")
    assert "caution" not in done.err
    gaps = [line for line in done.objects if line["name"].endswith("_difference")]
    assert gaps
    assert not any("unlike" in line["protocol"] for line in gaps)
    done = succeeds(*asked, "--against", "whole")
    said = "network.quantisation=nf4 against none"
    ids = newest(home)[0].id, Registry(home).find("whole").id
    assert f"caution: {ids[0]} and {ids[1]} differ in more than how they answer ({said})" in done.err.splitlines()
    gaps = [line for line in done.objects if line["name"].endswith("_difference")]
    assert {line["protocol"]["unlike"] for line in gaps} == {said}
