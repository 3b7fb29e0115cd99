"""The same recipe in 1, 2 and 4 processes: loss curves side by side, masks compared bit for bit.

    python benchmarks/processes.py --processes 1 2 4 -- quickstart training.steps=60
    python benchmarks/processes.py --processes 1 2 -- quickstart training.steps=60 training.parallel=fsdp

Each count is a run of its own, started as a user would start it (`remask train`, or torchrun). What is compared are
the losses of metrics.jsonl and, of every step and every example of the global batch, the noisy tokens that the network
was shown; they are written down by a spy on `add_noise` in each process.

    python benchmarks/processes.py --control training.micro_batch_size=16 -- quickstart training.steps=60

adds one process that only adds its numbers up in another order. What rounding alone does to a loss curve is seen there:
Muon's steps in bfloat16 make much of it, AdamW's little.
"""

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

SPY = "REMASK_SPY"


def main() -> None:
    """Runs every count, then prints the comparison."""
    if SPY in os.environ:
        train_and_tell(Path(os.environ[SPY]), sys.argv[1:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--control", nargs="+", metavar="KEY=VALUE", help="also one process with these keys")
    parser.add_argument("--json", action="store_true", help="one object and nothing else")
    parser.add_argument("recipe", nargs="+", metavar="RECIPE [KEY=VALUE]", help="as for remask train")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = {str(count): run(count, given.recipe, Path(folder) / str(count)) for count in given.processes}
        if given.control:
            runs[" ".join(given.control)] = run(1, [*given.recipe, *given.control], Path(folder) / "control")
    result = compare(runs)
    if given.json:
        print(json.dumps(result))
        return
    print(f"{'processes':>32}  {'last loss':>11}  {'largest difference: first tenth':>31}  {'all':>8}  masks")
    for row in result["rows"]:
        masks = "equal" if row["masks_equal"] else "DIFFER"
        print(
            f"{row['processes']:>32}  {row['last_loss']:>11.7f}  {row['early_difference']:>31.2e}  "
            f"{row['largest_difference']:>8.2e}  {masks}"
        )


def run(count: int, recipe: Sequence[str], place: Path) -> dict[str, Any]:
    """One run: its losses by step, the digest of each step's noisy rows, and how long it took."""
    place.mkdir(parents=True)
    keys = ["training.log_every=1"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *launcher, __file__, "train", *recipe, *keys]
    environment = {**os.environ, "REMASK_HOME": str(place / "runs"), SPY: str(place), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{count} processes failed ({done.returncode}):\n{done.stderr}")
    (metrics,) = (place / "runs").glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {
        "losses": [line["loss"] for line in lines if line["kind"] == "train"],
        "masks": digests(place),
        "seconds": time.monotonic() - began,
    }


def digests(place: Path) -> list[str]:
    """The digest of the noisy rows of each step, in the order of their place in the global batch."""
    steps: dict[int, dict[int, str]] = {}
    for path in place.glob("noise-*.jsonl"):
        for line in path.read_text().splitlines():
            step, rows = json.loads(line)
            steps.setdefault(step, {}).update({int(row): digest for row, digest in rows.items()})
    return ["".join(rows[row] for row in sorted(rows)) for _, rows in sorted(steps.items())]


def compare(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Each run beside the first of them."""
    first = next(iter(runs.values()))
    assert first["masks"], "the spy saw no noise: the recipe has none"
    rows = [
        {
            "processes": count,
            "steps": len(run["losses"]),
            "first_loss": run["losses"][0],
            "last_loss": run["losses"][-1],
            "early_difference": difference(run, first, steps=math.ceil(len(first["losses"]) / 10)),
            "largest_difference": difference(run, first, steps=len(first["losses"])),
            "masks_equal": run["masks"] == first["masks"],
            "seconds": run["seconds"],
        }
        for count, run in runs.items()
    ]
    return {"rows": rows}


def difference(run: dict[str, Any], other: dict[str, Any], *, steps: int) -> float:
    """The largest difference between the losses of two runs, over their first steps."""
    pairs = zip(run["losses"], other["losses"], strict=True)
    return max(abs(a - b) for a, b in islice(pairs, steps))


def train_and_tell(place: Path, arguments: list[str]) -> None:
    """The command line itself, with a spy that writes down what noise each example of a training step was given."""
    from remask import training
    from remask.cli import main as remask
    from remask.objectives import likelihood

    step, plain_noise, plain_begin = [0], likelihood.add_noise, training._begin_step
    seen = (place / f"noise-{os.environ.get('RANK', 0)}.jsonl").open("a")

    def begin_step(network: object, index: int, *rest: Any) -> None:
        step[0] = index
        plain_begin(network, index, *rest)

    def add_noise(process: Any, batch: Any, **draws: Any) -> Any:
        noisy = plain_noise(process, batch, **draws)
        if step[0]:
            rows = {
                int(row): hashlib.sha256(z.numpy().tobytes()).hexdigest()[:16]
                for row, z in zip(batch.rows, noisy.z, strict=True)
            }
            seen.write(json.dumps([step[0], rows]) + "\n")
            seen.flush()
        return noisy

    def no_longer_training(*_: Any, **__: Any) -> None:
        step[0] = 0

    likelihood.add_noise, training._begin_step = add_noise, begin_step
    plain_steer = training._steer

    def steer(*given: Any) -> None:
        plain_steer(*given)
        no_longer_training()

    training._steer = steer
    remask(arguments)


if __name__ == "__main__":
    main()
