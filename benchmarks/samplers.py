"""Quality of samples against the work they cost, for several samplers of one trained model.

Each sampler draws the same number of texts; another, autoregressive run judges them: generative perplexity in nats a
token, with the texts' unigram entropy beside it (a text that repeats itself is likely and worthless). Work is what the
network did: calls a text, and places computed a text (a call with a key-value cache computes a few places only).

Run: .venv/bin/python benchmarks/samplers.py RUN --judge RUN [--count 256] [--samplers ancestral,confidence,…]
     [--steps 8,16,32,64] [--budgets 0.1,0.5,2] [--blocks 16] [--keys temperature=0.8] [--out FOLDER]

Writes FOLDER/samplers.jsonl, one line a setting, and FOLDER/samplers.svg.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from remask.config.build import build_sampler
from remask.config.overrides import apply_overrides
from remask.config.schema import Recipe
from remask.data.cache import cache_home
from remask.data.packing import PackedRows
from remask.evaluation.judged import judged, passage
from remask.evaluation.likelihood import ratio, spread_indices
from remask.finished import open_model, sampling_with
from remask.generation import generate
from remask.judgement import open_judged_text
from remask.model import Model
from remask.networks.stacks import Stack
from remask.samplers import blank_prompt

COUNTED = ("entropy_bounded",)
"""Samplers that count their own steps."""


@dataclass
class Work:
    """What a network has done.

    Attributes:
        calls: forward passes.
        places: rows times places of them.
    """

    calls: int = 0
    places: int = 0


@contextmanager
def counted(network: nn.Module) -> Iterator[Work]:
    """Counts the forward passes of a transformer's stack of blocks."""
    work = Work()

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        del module, inputs
        work.calls += 1
        work.places += output.shape[0] * output.shape[1]

    stack = next(module for module in network.modules() if isinstance(module, Stack))
    handle = stack.register_forward_hook(note)
    try:
        yield work
    finally:
        handle.remove()


def settings(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The changes to a recipe's sampling, one for each point of the plot."""
    for block in arguments.blocks or [None]:
        for sampler in arguments.samplers:
            place = {} if block is None else {"block_length": block}
            if sampler in COUNTED:
                yield from ({"sampler": sampler, "budget": budget, **place} for budget in arguments.budgets)
                continue
            for steps in arguments.steps:
                within = steps if block is None else max(1, steps * block // arguments.length)
                yield {"sampler": sampler, "steps": within, **place}


def draw(model: Model, recipe: Recipe, changes: Mapping[str, Any], *, count: int) -> tuple[np.ndarray, Work]:
    """Texts [count L] by one setting, and the work they took."""
    spec = sampling_with(recipe, changes)
    prompt = blank_prompt(count, spec.length or recipe.data.length, device=model.device)
    with counted(model.network) as work:
        ids = generate(model, build_sampler(spec, model, seed=recipe.seed), prompt, seed=recipe.seed)
    return ids.cpu().numpy(), work


def measure(rows: Sequence[np.ndarray], model: Model, judge: Model) -> dict[str, float | None]:
    """What the judge makes of texts, and their entropy, each with a standard error over texts."""
    passages = [passage(row, model.tokenizer, judge=judge.tokenizer) for row in rows]
    figures = judged(judge, passages, length=judge.length, eos_id=judge.tokenizer.eos_id)
    nats, error = ratio(figures.nats, figures.tokens)
    spread = float(figures.entropy.std(ddof=1) / math.sqrt(len(rows)))
    return {
        "nats_per_token": nats,
        "nats_stderr": error,
        "entropy": float(figures.entropy.mean()),
        "entropy_stderr": spread,
    }


def label(line: Mapping[str, Any]) -> str:
    """A sampler's name in the legend."""
    return line["sampler"] + (f", blocks of {line['block_length']}" if line.get("block_length") else "")


def plot(lines: Sequence[Mapping[str, Any]], held_out: Mapping[str, Any], path: Path) -> None:
    """Judged nats and entropy against places computed, one curve a sampler."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
    names = list(dict.fromkeys(label(line) for line in lines))
    colours = pyplot.get_cmap("tab20")
    for index, name in enumerate(names):
        points = sorted((line for line in lines if label(line) == name), key=lambda line: line["work"])
        for axis, key in zip(axes, ("nats_per_token", "entropy"), strict=True):
            axis.errorbar(
                [line["work"] for line in points],
                [line[key] for line in points],
                yerr=[
                    2 * (line["nats_stderr" if key == "nats_per_token" else "entropy_stderr"] or 0) for line in points
                ],
                label=name,
                color=colours(index % 20),
                marker="os^Dvx"[index % 6],
                markersize=4,
                linewidth=1.2,
            )
    for axis, key, title in zip(
        axes,
        ("nats_per_token", "entropy"),
        ("judged nats a token (lower is likelier)", "unigram entropy of a text, nats"),
        strict=True,
    ):
        axis.axhline(held_out[key], color="black", linestyle="--", linewidth=1, label="held-out text")
        axis.set_xscale("log", base=2)
        axis.set_xlabel("places computed for each place of text")
        axis.set_title(title, fontsize=11)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7.5)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def numbers(text: str) -> list[float]:
    """`0.1,0.5` as a list."""
    return [float(part) for part in text.split(",") if part]


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--samplers", type=lambda text: text.split(","), default=["ancestral", "confidence"])
    parser.add_argument("--steps", type=lambda text: [int(part) for part in text.split(",")], default=[8, 16, 32, 64])
    parser.add_argument("--budgets", type=numbers, default=[0.1, 0.5, 2.0])
    parser.add_argument("--blocks", type=lambda text: [int(part) for part in text.split(",")], default=[])
    parser.add_argument("--keys", nargs="*", default=[], metavar="KEY=VALUE", help="further keys of sampling")
    parser.add_argument("--out", type=Path, default=Path("samplers"))
    return parser.parse_args()


def main() -> None:
    """Draws, judges, writes."""
    arguments = read_arguments()
    device = torch.device("cpu")
    model, recipe = open_model(arguments.run, device=device)
    judge, _ = open_model(arguments.judge, device=device)
    text = open_judged_text(model, recipe, cache=cache_home(), data_hash=None)
    arguments.length = recipe.sampling.length or recipe.data.length
    further: dict[str, Any] = {}
    apply_overrides(further, arguments.keys)
    rows = PackedRows(text.rows.store, length=arguments.length)
    references = rows.batch(spread_indices(len(rows) - 1, arguments.count)).ids.numpy()
    held_out = {"sampler": "held-out text", **measure(list(references), model, judge)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    with (arguments.out / "samplers.jsonl").open("w", encoding="utf-8") as file:
        print(json.dumps(held_out), file=file, flush=True)
        for changes in settings(arguments):
            ids, work = draw(model, recipe, {**changes, **further}, count=arguments.count)
            size = arguments.count * arguments.length
            line = {**changes, **further, "calls": work.calls, "work": work.places / size}
            line |= {"count": arguments.count, "run": arguments.run, "judge": arguments.judge}
            lines.append({**line, **measure(list(ids), model, judge)})
            print(json.dumps(lines[-1]), file=file, flush=True)
            print(json.dumps(lines[-1]), flush=True)
    plot(lines, held_out, arguments.out / "samplers.svg")


if __name__ == "__main__":
    main()
