"""A run folder as a training would leave it, made of nothing: the report's tests read it."""

import json
import math
import random
import re
from pathlib import Path

RUN_ID = "quickstart_W192D4_20260223_203349"

TRIVIAL = {
    "uniform": 8.01,
    "unigram": 4.62,
    "byte 1-gram": 4.71,
    "byte 2-gram": 3.81,
    "byte 3-gram": 2.97,
    "byte 4-gram": 2.52,
    "byte 5-gram": 2.41,
}

TEXT = """The "iter" statement returns an object of the class which must be used as the first argument.  If
the named attribute is not found, the default value is raised instead:

    >>> def parse(self, line=None):
    ...     return self.match(line)

See also the section of the standard type for the list of the module and the string formatting of each
item that is not in the sequence, and the exception of the call when no value is given.  Changed in
version 3.9: the optional argument names the file of the current process."""

RECIPE = """\
name: quickstart
description: Masked diffusion on Python's own documentation, a few minutes on two cores.
seed: 1
device: cpu
data: {source: python-docs, length: 128}
tokenizer: {kind: bpe, vocab_size: 1024}
process:
  kind: masking
  schedule: {kind: linear}
objective: {kind: likelihood_bound, t_min: 0.001}
network: {kind: transformer, width: 192, layers: 4, heads: 4, attention: bidirectional, head: tied}
training: {steps: 1000, batch_size: 64, learning_rate: 0.003, warmup_ratio: 0.05, decay: cosine}
sampling: {sampler: ancestral, steps: 64, count: 4}
"""

LIKELIHOOD = {"split": "validation", "steps": None, "draws": 8, "seed": 1, "bound": "likelihood_bound"}
QUALITY = {"sampler": "ancestral", "steps": 64, "seed": 1, "temperature": 1.0, "top_p": 1.0, "length": 128}


def make_run(folder: Path) -> Path:
    """Writes a finished and evaluated run into a new folder."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "run.json").write_text(json.dumps(record()))
    write_lines(folder / "metrics.jsonl", metrics())
    write_lines(folder / "samples.jsonl", samples())
    write_lines(folder / "evaluations.jsonl", evaluations())
    (folder / "trajectory.json").write_text(json.dumps(trajectory()))
    return folder


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def record() -> dict:
    return {
        "id": RUN_ID,
        "recipe": "quickstart",
        "family": "token",
        "seed": 1,
        "created": "2026-02-23T20:33:49.120+00:00",
        "finished": "2026-02-23T20:36:31.480+00:00",
        "status": "finished",
        "folder": RUN_ID,
        "git_commit": "3f2a9c41d7b0e865f1429ab07cd1c2b1d59e8a77",
        "git_dirty": True,
        "data_hash": "b1946ac92492d234",
        "tokenizer_hash": "591785b794601e21",
        "config_hash": "e4d909c290d0fb1c",
        "machine": "laptop (Linux x86_64, some processor, 2 cores, 8 GiB)",
        "device": "cpu",
        "torch_version": "2.13.0+cpu",
        "python_version": "3.11.7",
        "parameters": 1_312_768,
        "tokens_seen": 8_192_000,
        "step": 1000,
        "steps": 1000,
        "steps_per_second": 6.61,
        "tokens_per_second": 54_130.4,
        "peak_memory_bytes": 912_680_550,
        "lineage": [],
        "links": {},
        "tags": ["demo"],
        "conclusion": None,
        "verdict": "learns: 2.85 bits/byte, 0.96 below the byte bigram (3.81), 0.12 below the trigram (2.97)",
        "headline": {"bits_per_byte": 2.853},
        "trivial": TRIVIAL,
        "error": None,
    }


def metrics() -> list[dict]:
    dice = random.Random(1)
    lines: list[dict] = [{"kind": "trivial", "step": 0, "nats_per_token": {"uniform": 6.93}, "bits_per_byte": TRIVIAL}]
    for step in range(10, 1001, 10):
        clean = 2.75 + 3.6 * math.exp(-step / 70) + 1.65 * math.exp(-step / 330)
        noisy = clean + dice.gauss(0, 0.11)
        lines.append(
            {
                "kind": "train",
                "step": step,
                "loss": noisy * 2.4,
                "bits_per_byte": noisy,
                "learning_rate": 1e-3,
                "gradient_norm": 0.4,
                "tokens": step * 8192,
                "tokens_per_second": 54_000.0,
                "seconds": step * 0.1513,
            }
        )
        if step % 200 == 0:
            validation = {"nats_per_token": clean * 2.4, "bits_per_byte": clean + 0.03, "stderr": 0.021}
            lines.append({"kind": "validation", "step": step, **validation, "rows": 64, "seconds": 1.9})
            words = TEXT.split(" ")
            dice.shuffle(words)
            lines.append({"kind": "sample", "step": step, "text": " ".join(words)[:160]})
    return lines


def samples() -> list[dict]:
    how = {"run": RUN_ID, "step": 1000, "sampler": "ancestral", "steps": 64, "seed": 1, "temperature": 1.0}
    how |= {"top_p": 1.0, "length": 128, "ids": [1, 2, 3]}
    texts = [
        TEXT,
        TEXT[180:420],
        "  indented\n\ttabbed  and   spaced\n\n\nend",
        "def main():\n    return 0 & 1 < 2",
    ]
    lines = [{**how, "prompt": None, "text": text} for text in texts]
    return [
        *lines,
        {**how, "sampler": "confidence", "prompt": "The class", "text": "The class of the same name is"},
    ]


def evaluations() -> list[dict]:
    def measured(task: str, name: str, value: float | None, unit: str, n: int, stderr: float | None, **rest) -> dict:
        line = {
            "name": name,
            "value": value,
            "unit": unit,
            "n": n,
            "stderr": stderr,
            "trivial": {},
            "protocol": {},
        }
        return line | rest | {"task": task, "created": "2026-02-23T20:36:40+00:00"}

    nats = {"uniform": 6.931, "unigram": 4.0}
    per_text = {"held-out text": 4.31, "byte unigram": 3.19, "byte trigram": 3.62}
    shares = {"held-out text": 0.97, "byte unigram": 0.31, "byte trigram": 0.58}
    on = {"protocol": LIKELIHOOD}
    by = {"protocol": QUALITY}
    return [
        measured("likelihood", "nats_per_token", 4.871, "nats/token", 512, 0.0211, trivial=nats, **on),
        measured("likelihood", "bits_per_byte", 2.8534, "bits/byte", 512, 0.0124, trivial=TRIVIAL, **on),
        measured("likelihood", "perplexity", 130.45, "per token", 512, 2.75, trivial={"uniform": 1024.0}, **on),
        measured("quality", "entropy", 4.102, "nats", 16, 0.05, trivial=per_text, **by),
        measured("quality", "distinct_2", 0.8123, "share", 16, 0.013, trivial=shares, **by),
        measured("quality", "repetition", 0.0061, "share", 16, None, trivial={"held-out text": 0.004}, **by),
        measured("quality", "longest_copy", 9.0, "tokens", 16, None, trivial={"held-out text": 14.0}, **by),
        measured("quality", "word_share", 0.871, "share", 16, 0.02, trivial=shares, **by),
    ]


def trajectory(*, steps: int = 64) -> dict:
    dice = random.Random(3)
    tokens = re.findall(r"\n| ?\w{1,5}|\w+| ?[^\w\s]+| +", TEXT)
    revealed = [0 if place < 3 else dice.randint(1, steps) for place in range(len(tokens))]
    kept = sorted({round(k * steps / 12) for k in range(13)})
    frames = [
        {
            "step": step,
            "time": 1 - step / steps,
            "tokens": [token if at <= step else None for token, at in zip(tokens, revealed, strict=True)],
        }
        for step in kept
    ]
    return {
        "sampler": "ancestral",
        "steps": steps,
        "seed": 1,
        "tokens": tokens,
        "revealed": revealed,
        "frames": frames,
    }
