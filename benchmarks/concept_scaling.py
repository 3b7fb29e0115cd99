"""Time and memory of reading N tokens through C concepts, against attention over all of them and over a window.

The same job for every way: N tokens of one document, the last 64 of them hidden and predicted; a concept network
encodes the others and decodes the 64 places. Width, heads and layers (of the encoder, where there is one) are equal.

  concepts, C fixed      each layer reads the tokens into C vectors (C · N); the decoder reads the vectors alone
  two-way, C fixed       each layer lets the tokens read the concepts too
  concepts, C = N / 64   the first with more concepts for more tokens: C · N grows with N²
  sliding window         the transformer, each token attends to half a window on either side, in chunks of that size
  full attention         the transformer, every token attends to every other, by torch's fused attention without a mask

Each point, one way of reading N tokens in one kind of pass, is a process of its own. Weights and their gradients are
there and a short row has warmed it up; then the pass runs for `--seconds`, three times at least, behind a first time
that does not count (once in all, if once takes ten times as long), and the median is taken. A forward pass keeps no
graph; forward and backward is a step of training without the optimiser. On a CPU the time is that of the processor,
summed over threads, so that other work on the machine counts little; on a GPU it is that of the clock. On a CPU the C
library is told to keep memory that a pass gives back for the next one: pages fetched anew would be most of the time of
long rows. Memory is the most that the process (the GPU) has held, over what it held before. A point that takes longer
than `--limit` or more than `--gigabytes` is left out and named, and with it the longer rows of the same way and pass.
Slopes are those of least-squares lines through log time against log N at the last three lengths measured.

Run: .venv/bin/python benchmarks/concept_scaling.py [--max-n 65536] [--width 256] [--layers 4] [--concepts 128]
     [--window 256] [--threads 1] [--limit 300] [--gigabytes 12] [--lines FILE.jsonl] [--figure FILE.svg]
With --lines each point is written down when it is there, and is not measured again by the next run.

Shape letters: N tokens.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from reading_ways import FIXED, FULL, WAYS, Sizes, row_of
from torch import Tensor, nn

from remask.machine import peak_memory_bytes

SHORTEST = 256
STEEPEST, LEAST_GAIN, GAIN_AT = 1.1, 20.0, 16_384
"""What the family promises: the slope at a fixed C, and by how much full attention is slower at so many tokens."""
LONG = 10
"""A first run of so many times `--seconds` is the only one."""
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""For the GNU C library; others pass over it."""
MEASURES = {"seconds": ("ms", 1e3), "memory_bytes": ("MB", 1e-6)}
"""Figure → its unit in the tables, and what it is multiplied by."""

Line = Mapping[str, Any]
"""A point: its way, tokens and pass, and its figures or why it was `left_out`."""


def forward(loss: Callable[[nn.Module, Tensor], Tensor], network: nn.Module, row: Tensor) -> None:
    """The loss alone."""
    with torch.no_grad():
        loss(network, row)


def forward_and_backward(loss: Callable[[nn.Module, Tensor], Tensor], network: nn.Module, row: Tensor) -> None:
    """The loss and every weight's gradient."""
    loss(network, row).backward()


PASSES = {"forward": forward, "forward + backward": forward_and_backward}


# ── one point, in a process of its own ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Task:
    """One point.

    Attributes:
        way: of `WAYS`.
        tokens: N.
        kind: of `PASSES`.
        sizes: what all points have in common.
        seconds: that the pass is repeated for.
    """

    way: str
    tokens: int
    kind: str
    sizes: Sizes
    seconds: float


def measure(task: Task) -> dict[str, Any]:
    """The figures of one point, for a process that has done nothing else."""
    torch.set_num_threads(task.sizes.threads)
    device, loss = torch.device(task.sizes.device), WAYS[task.way].loss
    network = WAYS[task.way].build(task.sizes, task.tokens).to(device).train()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    loss(network, row_of(SHORTEST, device)).backward()  # torch imports parts of itself in a first step
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = peak_memory_bytes(device) or 0
    row, run = row_of(task.tokens, device), PASSES[task.kind]
    times = timed(lambda: run(loss, network, row), device, seconds=task.seconds)
    return {
        "seconds": statistics.median(times),
        "repeats": len(times),
        "memory_bytes": (peak_memory_bytes(device) or 0) - before,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def timed(run: Callable[[], None], device: torch.device, *, seconds: float, most: int = 50) -> list[float]:
    """The time of each of at least three runs behind a first one, which fetches memory; of that alone if it is long."""
    clock = clock_of(device)

    def once() -> float:
        began = clock()
        run()
        return clock() - began

    first, times = once(), []
    if first >= LONG * seconds:
        return [first]
    while len(times) < 3 or (sum(times) < seconds and len(times) < most):
        times.append(once())
    return times


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of the processor, or of the wall once a GPU has done what it was told."""
    if device.type != "cuda":
        return time.process_time

    def after_all() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return after_all


def hold(gigabytes: float) -> None:
    """Lets this process allocate no more than so much, so that a point too large fails alone."""
    import resource

    limit = int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def run_point(given: str, *, gigabytes: float) -> None:
    """Prints one JSON object: what `--point` does."""
    fields = json.loads(given)
    task = Task(**{**fields, "sizes": Sizes(**fields["sizes"])})
    if task.sizes.device == "cpu":
        hold(gigabytes)
    try:
        print(json.dumps(measure(task)))
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        sys.exit(f"more than {gigabytes:g} GB" if task.sizes.device == "cpu" else "more memory than the device has")


# ── all points ─────────────────────────────────────────────────────────────────────────────────────────────────────


def in_fresh_process(task: Task, *, limit: float, gigabytes: float) -> dict[str, Any]:
    """The line of one point.

    Raises:
        RuntimeError: when the process fails for another reason than time or memory.
    """
    command = [sys.executable, __file__, "--point", json.dumps(asdict(task)), "--gigabytes", str(gigabytes)]
    point = {"way": task.way, "tokens": task.tokens, "pass": task.kind}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=os.environ | KEEP_MEMORY)
    except subprocess.TimeoutExpired:
        return {**point, "left_out": f"more than {limit:g} s"}
    if done.returncode == 0:
        return {**point, **json.loads(done.stdout)}
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    if not reason.startswith("more "):
        raise RuntimeError(f"{task.way} at {task.tokens} tokens, {task.kind}, failed: {reason}")
    return {**point, "left_out": reason}


def all_points(arguments: argparse.Namespace, sizes: Sizes) -> Iterator[Line]:
    """The line of every point, as it comes, from the shortest row of each way and pass to the longest."""
    known = written_down(arguments.lines, sizes)
    lengths = [2**n for n in range(int(math.log2(SHORTEST)), int(math.log2(arguments.max_n)) + 1)]
    for way in WAYS:
        for kind in PASSES:
            reason = ""
            for tokens in lengths:
                line = known.get((way, tokens, kind))
                if line is None and reason:
                    line = {"way": way, "tokens": tokens, "pass": kind, "left_out": f"{reason} for a shorter row"}
                elif line is None:
                    task = Task(way, tokens, kind, sizes, arguments.seconds)
                    line = in_fresh_process(task, limit=arguments.limit, gigabytes=arguments.gigabytes)
                    write_down(line, sizes, arguments.lines)
                reason = reason or line.get("left_out", "")
                yield line


def written_down(path: Path | None, sizes: Sizes) -> dict[tuple[str, int, str], Line]:
    """Points measured before at the same sizes; what was left out is tried again."""
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    same = (line for line in lines if line["sizes"] == asdict(sizes) and "left_out" not in line)
    return {(line["way"], line["tokens"], line["pass"]): line for line in same}


def write_down(line: Line, sizes: Sizes, path: Path | None) -> None:
    """Appends a point, with the sizes that it was measured at, to a file of points."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            print(json.dumps({**line, "sizes": asdict(sizes)}), file=file)


def curves(lines: Sequence[Line], kind: str, key: str) -> dict[str, dict[int, float]]:
    """Way → number of tokens → a figure of one kind of pass."""
    found: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    for line in lines:
        if line["pass"] == kind and key in line:
            found[line["way"]][line["tokens"]] = line[key]
    return found


def slope(curve: Mapping[int, float], *, last: int = 3) -> float:
    """Of log value against log N, by least squares over the last points; nan where there are fewer than that."""
    points = sorted(curve.items())[-last:]
    if len(points) < last or min(value for _, value in points) <= 0:
        return math.nan
    xs, ys = zip(*((math.log(tokens), math.log(value)) for tokens, value in points), strict=True)
    return statistics.linear_regression(xs, ys).slope


# ── what is told of them ───────────────────────────────────────────────────────────────────────────────────────────


def tell(lines: Sequence[Line], sizes: Sizes) -> None:
    """Prints tables, what was left out, and whether the promises hold."""
    lengths = sorted({line["tokens"] for line in lines})
    print(described(sizes))
    for key, (unit, scale) in MEASURES.items():
        for kind in PASSES:
            print(f"\n{f'{kind}, {unit}':33}" + "".join(f"{length:>10,}" for length in lengths) + f"{'slope':>8}")
            for way, curve in curves(lines, kind, key).items():
                cells = "".join(f"{curve[n] * scale:10.1f}" if n in curve else f"{'–':>10}" for n in lengths)
                print(f"  {way:31}{cells}{slope(curve):8.2f}")
    print()
    for line in lines:
        if "left_out" in line:
            print(f"left out: {line['way']}, {line['tokens']:,} tokens, {line['pass']}: {line['left_out']}")
    for kind in PASSES:
        for sentence in promises(curves(lines, kind, "seconds")):
            print(f"{kind}: {sentence}")


def promises(times: Mapping[str, Mapping[int, float]]) -> tuple[str, str]:
    """The slope at a fixed C, and how much slower full attention is, each beside what was promised."""
    rise = slope(times[FIXED])
    verdict = "not measured" if math.isnan(rise) else "holds" if rise <= STEEPEST else "FAILS"
    first = f"slope of time at fixed C, last three lengths: {rise:.2f}   (≤ {STEEPEST}: {verdict})"
    both = sorted(times[FIXED].keys() & times[FULL].keys())
    gains = {tokens: times[FULL][tokens] / times[FIXED][tokens] for tokens in both}
    verdict = "not measured" if GAIN_AT not in gains else "holds" if gains[GAIN_AT] >= LEAST_GAIN else "FAILS"
    told = ", ".join(f"{gain:.2g} at {tokens:,}" for tokens, gain in gains.items())
    return first, f"time of full attention over that of concepts: {told}   (≥ {LEAST_GAIN:g} at {GAIN_AT:,}: {verdict})"


def described(sizes: Sizes) -> str:
    """What all points have in common, in words."""
    where = f"{sizes.threads} thread{'s' * (sizes.threads > 1)}" if sizes.device == "cpu" else "a GPU"
    return f"one row, width {sizes.width}, {sizes.layers} layers, C = {sizes.concepts}, window {sizes.window}, {where}"


def draw(lines: Sequence[Line], sizes: Sizes, path: Path) -> None:
    """Time of both passes and memory of the longer one against N, on logarithmic axes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.6), layout="constrained")
    axes = figure.subplots(1, 3)
    shown = (("forward", "seconds"), ("forward + backward", "seconds"), ("forward + backward", "memory_bytes"))
    for axis, (kind, key) in zip(axes, shown, strict=True):
        unit, scale = MEASURES[key]
        for way, curve in curves(lines, kind, key).items():
            tokens = sorted(n for n, value in curve.items() if value > 0)
            label = f"{way} (slope {slope(curve):.2f})"
            axis.plot(tokens, [curve[n] * scale for n in tokens], WAYS[way].dashes, marker="o", ms=3, label=label)
        axis.set_xscale("log", base=2)
        axis.set(yscale="log", xlabel="tokens N")
        axis.set_title(f"{kind}, {unit}", fontsize=11)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7.5)
    figure.suptitle(described(sizes), fontsize=11)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "concept-scaling"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"width": 256, "layers": 4, "decoder-layers": 2, "heads": 4, "concepts": 128}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--max-n", type=int, default=65_536, help="longest row; rows are powers of two from 256 on")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seconds", type=float, default=3.0, help="that a pass is repeated for")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that a point may take, its start included")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="that a point may allocate, on a CPU")
    parser.add_argument("--lines", type=Path, default=None, help="JSON lines of points, read and added to")
    parser.add_argument("--figure", type=Path, default=None, help="where the plot goes")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measures, tells, draws."""
    arguments = read_arguments()
    if arguments.point is not None:
        run_point(arguments.point, gigabytes=arguments.gigabytes)
        return
    kept = ("width", "layers", "decoder_layers", "heads", "concepts", "window", "threads", "device")
    sizes = Sizes(**{name: getattr(arguments, name) for name in kept})
    lines = []
    for line in all_points(arguments, sizes):
        told = line.get("left_out") or f"{line['seconds']:.4f} s, {line['memory_bytes'] / 1e6:.0f} MB"
        print(f"{line['way']}, {line['tokens']:,} tokens, {line['pass']}: {told}", file=sys.stderr, flush=True)
        lines.append(line)
    tell(lines, sizes)
    if arguments.figure is not None:
        draw(lines, sizes, arguments.figure)


if __name__ == "__main__":
    main()
