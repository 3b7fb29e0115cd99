"""A mixture of experts against two dense networks: one that costs as much, and one that has as many parameters.

All three are thoughts on the same one-step problems of arithmetic, in the same order, with the same noise, for the same
steps. Now and then each answers held-out questions, by the moving average of its weights, with its answer read off the
drawn row; cumulative operations are those of `remask.flops` so far. Chance is 1 in 100.

  train   trains every arm with every seed, each in a process of its own; lines of FILE.jsonl that are there stay
  table   prints what came of it, and draws accuracy over operations
  flops   operations a token, measured and by the closed forms: of the small networks, and of Qwen1.5-MoE-A2.7B beside
          its dense matches (in full shape on the device `meta`: nothing is computed, and no weight is held)

Run: .venv/bin/python benchmarks/experts_against_dense.py train --lines FILE.jsonl [--seeds 1 2] [--steps 1500]
     .venv/bin/python benchmarks/experts_against_dense.py train --lines FILE.jsonl --seeds 1 --arm ARM
     .venv/bin/python benchmarks/experts_against_dense.py table --lines FILE.jsonl … [--figure FILE.svg]
     .venv/bin/python benchmarks/experts_against_dense.py flops
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from large_flops import large_models

from remask.config.load import load_recipe
from remask.config.schema import Recipe
from remask.data.documents import Pair
from remask.data.splits import Split
from remask.data.tasks import arithmetic
from remask.evaluation.answers import share_error
from remask.experiment import start
from remask.flops import active_parameters, analytic_flops, analytic_forward_flops, forward_flops, training_flops
from remask.machine import peak_memory_bytes
from remask.materials import gather
from remask.reasoning_tasks.responses import respond, ways_of
from remask.trainer import Run, Unwatched

Lines = Sequence[Mapping[str, Any]]
"""What was written down at validations."""

PROBLEMS: Mapping[Split, int] = {"train": 3600, "validation": 400, "test": 400}
"""Of the about 5,000 with answers evenly spread; the splits are drawn by a hash of the numbers."""
SMALL = (
    *("network.width=64", "network.layers=3", "network.heads=2", "data.length=26"),
    *("training.batch_size=32", "training.prompt_dropout=0", "training.evaluate_rows=64"),
    *("sampling.steps=10", "sampling.guidance=0"),
)
ARMS: Mapping[str, Sequence[str]] = {
    "8 experts, 2 a token": ("network.experts=8", "network.experts_per_token=2", "network.expert_width=80"),
    "dense, equal operations": ("network.mlp_width=163",),
    "dense, equal parameters": ("network.mlp_width=643",),
}


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def recipe_of(arm: str, *, folder: Path, seed: int, steps: int) -> Recipe:
    """The recipe of an arm on the problems of a folder, asked six times on its way."""
    files = [f"data.source={folder / 'train.txt'}", f"data.validation={folder / 'validation.txt'}"]
    files += [f"data.test={folder / 'test.txt'}", "data.prompt_key=prompt", "data.response_key=response"]
    often = [f"training.steps={steps}", f"training.evaluate_every={max(1, steps // 6)}"]
    often += [f"training.checkpoint_every={steps}", f"training.sample_every={steps}"]
    return load_recipe("thought-cpu", [*SMALL, *ARMS[arm], *files, *often, f"seed={seed}", "name=experts-or-dense"])


def write_problems(folder: Path) -> dict[Split, list[Pair]]:
    """Writes the problems as files of `prompt||response`, and gives them."""
    found = arithmetic.pairs(random.Random(0), PROBLEMS, steps=1)
    for split, pairs in found.items():
        lines = [f"{pair.prompt}||{pair.response}\n" for pair in pairs]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return found


class Examiner(Unwatched):
    """Asks a network in training at each of its validations, and writes down how many answers are right.

    Args:
        questions: held out.
        facts: of each line.
        file: for lines.
    """

    def __init__(self, questions: Sequence[Pair], *, facts: Mapping[str, Any], file: Path) -> None:
        self.questions, self.facts, self.file = questions, facts, file
        self.run: Run | None = None
        self.began, self.asking = 0.0, 0.0

    def prepared(self, run: Run) -> None:
        """Keeps the run whose weights are asked."""
        self.run, self.began = run, time.process_time()

    def logged(self, record: Mapping[str, Any]) -> None:
        """Asks at validations."""
        if record["kind"] != "validation" or self.run is None:
            return
        seconds, run = time.process_time() - self.began - self.asking, self.run
        with run.state.average.applied(run.model.network):
            right = self.right(run)
        each, tokens = run.record.flops_per_token, run.state.tokens
        line = {
            **self.facts,
            "step": record["step"],
            "right": right,
            "asked": len(self.questions),
            "flops_per_token": each,
            "flops": each * tokens if each is not None else None,
            "tokens": tokens,
            "parameters": run.model.parameters,
            "active_parameters": active_parameters(run.model.network),
            "cpu_seconds": seconds,
            "peak_memory_bytes": peak_memory_bytes(run.model.device),
        }
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        self.asking = time.process_time() - self.began - seconds

    def right(self, run: Run) -> int:
        """How many of the questions are answered right."""
        way, prompts = ways_of(run.model, run.recipe)["trace"], [pair.prompt for pair in self.questions]
        length = run.recipe.data.length
        said = respond(run.model, prompts, way, length=length, seed=run.recipe.seed, watch=lambda done, of: None)
        answers = zip(self.questions, said, strict=True)
        return sum(r is not None and arithmetic.is_right(q.prompt, r.text, q.response) for q, r in answers)


def train_one(arm: str, *, seed: int, steps: int, file: Path, threads: int) -> None:
    """Trains one arm with one seed in this process."""
    torch.set_num_threads(threads)
    with TemporaryDirectory() as place:
        folder = Path(place)
        questions = write_problems(folder)["validation"]
        recipe = recipe_of(arm, folder=folder, seed=seed, steps=steps)
        facts = {"arm": arm, "seed": seed, "steps": steps}
        examiner = Examiner(questions, facts=facts, file=file)
        start(recipe, home=folder / "runs", cache=folder / "cache", watch=examiner)


def train_all(args: argparse.Namespace) -> None:
    """Trains what is not there yet, each in a process of its own, seed by seed."""
    (file,) = args.lines
    done = {(line["arm"], line["seed"]) for line in lines_of(file) if line["step"] == line["steps"]}
    for seed in args.seeds:
        for arm in ARMS:
            if (arm, seed) not in done:
                kept = [line for line in lines_of(file) if (line["arm"], line["seed"]) != (arm, seed)]
                file.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
                own = ["--arm", arm, "--seeds", str(seed), "--steps", str(args.steps), "--threads", str(args.threads)]
                subprocess.run([sys.executable, __file__, "train", "--lines", str(file), *own], check=True)


def lines_of(file: Path) -> list[dict[str, Any]]:
    """What was written down so far."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


# ── what came of it ─────────────────────────────────────────────────────────────────────────────────────────────────


def shares(lines: Lines, arm: str) -> dict[int, tuple[float, float, float]]:
    """Step → cumulative operations, the share of right answers, and its standard error over seeds and questions.

    The error is that of the mean share as one of the questions of a single seed, for all seeds answer the same ones and
    the answers of two say little more of other questions; or, where that is larger, that of the mean over seeds.
    """
    found = {}
    for step in sorted({line["step"] for line in lines if line["arm"] == arm}):
        own = [line for line in lines if line["arm"] == arm and line["step"] == step]
        each = [line["right"] / line["asked"] for line in own]
        (asked,) = {line["asked"] for line in own}
        error = share_error(statistics.mean(line["right"] for line in own), asked)
        if len(own) > 1:
            error = max(error, statistics.stdev(each) / len(own) ** 0.5)
        found[step] = (statistics.mean(line["flops"] for line in own), statistics.mean(each), error)
    return found


def tell(lines: Lines) -> None:
    """Prints a line for each arm and step, and one on what a step costs."""
    seeds = sorted({line["seed"] for line in lines})
    print(f"right of held-out questions, seeds {', '.join(map(str, seeds))}; chance 0.010")
    for arm in ARMS:
        own = [line for line in lines if line["arm"] == arm]
        if not own:
            continue
        for step, (flops, share, error) in shares(lines, arm).items():
            each = ", ".join(f"{line['right'] / line['asked']:.3f}" for line in own if line["step"] == step)
            print(f"{arm:24} step {step:>5}  {flops:.3e} operations  {share:.3f} ± {error:.3f}  ({each})")
        last = max(own, key=lambda line: line["step"])
        cost = statistics.mean(line["cpu_seconds"] / line["step"] for line in own if line["step"] == last["step"])
        memory = max(line["peak_memory_bytes"] for line in own)
        print(
            f"{arm:24} {last['parameters']:,} parameters, {last['active_parameters']:,} active, {1e3 * cost:.0f} ms of "
            f"CPU a step, peak {memory / 2**20:.0f} MiB of the process"
        )


def draw(lines: Lines, path: Path) -> None:
    """Right answers over cumulative operations: the mean over seeds with its error, and each seed faintly."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axis = figure.subplots()
    for arm, style, colour in zip(ARMS, ("o-", "s--", "^:"), ("C0", "C1", "C2"), strict=True):
        points = shares(lines, arm).values()
        flops, mean, errors = ([point[k] for point in points] for k in range(3))
        axis.errorbar(flops, mean, yerr=errors, fmt=style, color=colour, capsize=2, label=arm)
        for seed in sorted({line["seed"] for line in lines}):
            own = sorted((line for line in lines if (line["arm"], line["seed"]) == (arm, seed)), key=_flops)
            axis.plot(
                [_flops(each) for each in own], [each["right"] / each["asked"] for each in own], c=colour, alpha=0.25
            )
    axis.axhline(0.01, color="grey", lw=1, ls="--", label="a random number")
    axis.set(xscale="log", xlabel="floating-point operations of training so far", ylabel="share of right answers")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "experts-against-dense"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _flops(line: Mapping[str, Any]) -> float:
    return line["flops"]


# ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def tell_flops(*, places: int) -> None:
    """Prints counted operations beside those of the closed forms, of the small networks and the large models."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        write_problems(folder)
        for arm in ARMS:
            recipe = recipe_of(arm, folder=folder, seed=1, steps=1)
            device = torch.device("cpu")
            made = gather(recipe, cache=folder / "cache", device=device, processes=1, watch=Unwatched())
            model, batch = made.model, made.held_out[0]
            pairs = (forward_flops(model, batch), analytic_forward_flops(model, batch))
            tell_pairs(arm, model.parameters, *pairs, training_flops(model, batch), analytic_flops(model, batch))
    for large in large_models(places=places):
        counts = (large.forward, large.forward_formula, large.training, large.training_formula)
        tell_pairs(large.name, large.parameters, *counts)
        print(f"{'':44} predicted in training, 4 bits, 2 × {places}: {large.training_bytes / 2**30:.2f} GiB")


def tell_pairs(name: str, parameters: int, *counts: float | None) -> None:
    """Prints counted and analytic operations a token, forward and in training, and how far they are apart."""
    forward, formula, training, training_formula = (count or float("nan") for count in counts)
    print(
        f"{name:44} {parameters:>14,} parameters   forward {forward:.5g}, by the formula {formula:.5g} "
        f"({forward / formula - 1:+.4%})   training {training:.5g}, by the formula {training_formula:.5g} "
        f"({training / training_formula - 1:+.4%})",
        flush=True,
    )


def main() -> None:
    """Trains, prints or draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "table", "flops"])
    parser.add_argument("--lines", type=Path, nargs="+", default=[], help="JSON lines; train: one file, added to")
    parser.add_argument("--figure", type=Path, help="table: where the plot goes")
    parser.add_argument("--arm", choices=list(ARMS), help="train: this one alone, in this process")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--places", type=int, default=256, help="flops: of a row of the large models")
    args = parser.parse_args()
    if args.command == "flops":
        tell_flops(places=args.places)
        return
    if not args.lines or (args.command == "train" and len(args.lines) > 1):
        parser.error("--lines FILE.jsonl is needed; for train one file")
    if args.command == "table":
        lines = [line for file in args.lines for line in lines_of(file)]
        tell(lines)
        if args.figure is not None:
            draw(lines, args.figure)
    elif args.arm:
        train_one(args.arm, seed=args.seeds[0], steps=args.steps, file=args.lines[0], threads=args.threads)
    else:
        train_all(args)


if __name__ == "__main__":
    main()
