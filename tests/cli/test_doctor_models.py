"""`remask doctor --model`: what a model takes, before anything of it is loaded."""

import json

import pytest
import typer
from typer.testing import CliRunner

from pretrained_models import write_mixture
from remask.cli.doctor import doctor
from remask.cli.model_memory import read_size
from remask.errors import UserError

app = typer.Typer()
app.command()(doctor)
QWEN = "Qwen/Qwen1.5-MoE-A2.7B"


def run(*arguments):
    return CliRunner().invoke(app, ["--model", *arguments], catch_exceptions=False)


def test_the_named_mixture_fits_a_card_of_16_gb_and_nothing_is_fetched(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = run(QWEN, "--memory", "16GB")
    assert result.exit_code == 0
    assert "fits: 9.6" in result.stdout
    assert "GFLOPs a token forward at 256 places" in result.stdout
    for part in ("experts", "embeddings", "head", "adapters", "activations", "logits", "beside tensors", "total"):
        assert f"\n{part} " in result.stdout


def test_what_does_not_fit_ends_with_1_and_what_to_change(tmp_path):
    folder = write_mixture(tmp_path / "tiny")
    result = run(str(folder), "--memory", "1MB", "--embeddings", "device", "--no-gradient-checkpointing")
    assert result.exit_code == 1
    assert "does not fit" in result.stdout
    assert "-> training.gradient_checkpointing=true saves" in result.stdout


def test_json_is_one_object_a_line_with_the_verdict_last(tmp_path):
    folder = write_mixture(tmp_path / "tiny")
    result = run(str(folder), "--json", "--memory", "16GB", "--batch", "1", "--length", "16", "--precision", "float32")
    *parts, verdict = [json.loads(line) for line in result.stdout.splitlines()]
    device = sum(p["bytes"] for p in parts if p["place"] == "device" and p["of"] in ("weights", "training"))
    assert verdict["totals"]["training on device"] == device
    assert verdict["fits"] is True
    assert verdict["changes"] == {}
    assert next(p["note"] for p in parts if p["name"] == "embeddings").endswith("float32")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--memory", "much"], "--memory much: write for example 16GB"),
        (["--memory", "16"], "--memory 16 would be so many bytes: write for example 16GB or 16GiB"),
        (["--precision", "fp8"], "--precision fp8: valid are fp16, bf16, float32"),
        (["--quantisation", "int8"], "--quantisation int8: valid are nf4, none"),
        (["--lora-rank", "0"], "those in 4 bits are frozen"),
        (["--lora-rank", "0", "--quantisation", "none"], "a table on the CPU is frozen"),
    ],
)
def test_mistakes_are_one_line(arguments, words):
    with pytest.raises(UserError, match=words):
        run(QWEN, *arguments)


def test_sizes_are_read_in_powers_of_ten_and_of_two():
    assert [read_size(text) for text in ("16GB", "15.5 GiB", "1000000000", "2mib")] == [
        16 * 10**9,
        int(15.5 * 2**30),
        10**9,
        2 * 2**20,
    ]
