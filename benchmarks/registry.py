"""CPU seconds of the commands that read the whole registry, over a home of synthetic runs with evaluations.

The runs are written as folders and taken in by `Registry.rebuild`, in one transaction. Each command runs as a process
of its own, several times; printed are the least and the median of its processor time (user and system, its start
included), beside that of an interpreter that imports nothing, and of `remask runs` in an empty home.

Run: .venv/bin/python benchmarks/registry.py [--runs 1000] [--evaluations 2] [--repeats 5] [--json]
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from remask.evaluation.measurement import Measurement
from remask.runs import EvaluationRecord, Registry, RunRecord, json_line

COMMANDS = (
    ["runs"],
    ["runs", "--json"],
    ["runs", "--status", "failed"],
    ["log"],
    ["log", "--json"],
    ["show", "last"],
)
START = datetime(2026, 1, 1, tzinfo=UTC)
STATUSES = ("finished", "finished", "finished", "failed", "killed", "interrupted")
FIGURES = {
    "likelihood": (("bits_per_byte", "bits/byte"), ("nats_per_token", "nats/token"), ("perplexity", "ratio")),
    "quality": tuple((name, "share") for name in ("entropy", "distinct_1", "distinct_2", "repetition", "self_bleu")),
}
TRIVIAL = {"uniform": 8.0, "byte 1-gram": 4.93, "byte 2-gram": 3.81, "token uniform": 3.2, "token unigram": 2.9}


def run_record(number: int, draw: random.Random) -> RunRecord:
    """A run's record with every field filled, as long as real ones are."""
    moment = START + timedelta(minutes=7 * number)
    recipe = draw.choice(["mdlm", "sedd", "ar", "proofreading", "concept-diffusion"])
    name = f"{recipe}_D256L4_{moment:%Y%m%d_%H%M%S}"
    bits = draw.uniform(2.0, 4.5)
    status = draw.choice(STATUSES)
    return RunRecord(
        id=name,
        recipe=recipe,
        family="baseline" if recipe == "ar" else "token",
        seed=number % 3,
        created=moment.isoformat(timespec="milliseconds"),
        status=status,
        finished=(moment + timedelta(minutes=5)).isoformat(timespec="milliseconds"),
        folder=name,
        git_commit=f"{draw.getrandbits(160):040x}",
        git_dirty=bool(number % 2),
        git_tag="v0.3" if number % 10 == 0 else None,
        architecture="transformer D256 L4 H4, bidirectional",
        data="python-docs",
        tokenizer="bpe 4096",
        objective="bound of the likelihood under masking noise, linear schedule",
        extra_losses=["remask task ×0.5"] if recipe == "proofreading" else [],
        setup_hash=f"{number // 3:064x}",
        data_hash="d" * 64,
        tokenizer_hash="t" * 64,
        config_hash=f"{number:064x}",
        machine="workstation (Linux x86_64, some processor of a long name @ 2.00GHz, 16 cores, 128 GiB)",
        device="cuda:0 (NVIDIA H100)",
        torch_version="2.13.0",
        python_version="3.11.7",
        parameters=4_200_000,
        active_parameters=4_200_000,
        train_tokens=1_000_000,
        tokens_seen=8_000_000,
        step=1000,
        steps=1000,
        seconds=300.0,
        steps_per_second=3.3,
        tokens_per_second=26_000.0,
        peak_memory_bytes=2**30,
        flops_per_token=2.5e7,
        flops=2e14,
        lineage=[{"how": "resumed", "from": f"{name}/checkpoints/step-500"}] if number % 5 == 0 else [],
        tags=["study:width"] if number % 4 == 0 else [],
        conclusion="wider is better, at the cost of speed" if number % 10 == 0 else None,
        verdict=f"learns: {bits:.2f} bits/byte, {3.81 - bits:.2f} below the byte bigram (3.81)",
        headline={"bits_per_byte": bits, "nats_per_token": bits * 1.4},
        trivial={**TRIVIAL},
        error="the disk is full" if status == "failed" else None,
    )


def write_run(home: Path, number: int, *, evaluations: int) -> None:
    """A run's folder: its record, its evaluations and their figures."""
    draw = random.Random(number)
    run = run_record(number, draw)
    folder = home / run.id
    lines = []
    for task_number in range(evaluations):
        task = ("likelihood", "quality")[task_number % 2]
        moment = datetime.fromisoformat(run.created) + timedelta(minutes=6, seconds=task_number)
        created = moment.isoformat(timespec="milliseconds")
        record = EvaluationRecord(
            id=f"{task}_{moment:%Y%m%d_%H%M%S}",
            run_id=run.id,
            task=task,
            created=created,
            status="finished",
            finished=created,
            checkpoint=f"{run.id}/model",
            model_hash="m" * 64,
            step=run.step,
            git_commit=run.git_commit,
            machine=run.machine,
            device=run.device,
            data_hash=run.data_hash,
            tokenizer_hash=run.tokenizer_hash,
            seconds=12.5,
        )
        (folder / "evaluations" / record.id).mkdir(parents=True)
        (folder / "evaluations" / record.id / "evaluation.json").write_text(json_line(record.to_json()) + "\n")
        kept = {"task": task, "created": created, "evaluation": record.id}
        lines += [figure(name, unit, draw).to_json() | kept for name, unit in FIGURES[task]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json_line(run.to_json()) + "\n")
    (folder / "evaluations.jsonl").write_text("".join(f"{json_line(line)}\n" for line in lines))


def figure(name: str, unit: str, draw: random.Random) -> Measurement:
    """A figure with trivial values and a protocol as long as real ones."""
    return Measurement(
        name=name,
        value=draw.uniform(0.0, 4.0),
        unit=unit,
        n=512,
        stderr=0.01,
        trivial=TRIVIAL,
        protocol={"split": "validation", "rows": 512, "length": 256, "draws": 8, "seed": 1, "weights": "average"},
    )


def repeated(command: list[str], *, home: Path, repeats: int) -> dict[str, float]:
    """The least and the median of a command's CPU seconds, after one that fills the file cache."""
    times = [cpu_seconds(command, home=home) for _ in range(repeats + 1)][1:]
    return {"least": min(times), "median": statistics.median(times)}


def cpu_seconds(command: list[str], *, home: Path) -> float:
    """Processor time of one command, user and system.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "REMASK_HOME": str(home), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(runs: int, *, evaluations: int, repeats: int) -> dict[str, Any]:
    """Command → the least and the median of its CPU seconds, over a home of so many runs."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "runs"
        for number in range(runs):
            write_run(home, number, evaluations=evaluations)
        assert Registry(home).rebuild().runs == runs, "two runs have one id"
        remask = [sys.executable, "-m", "remask"]
        seconds = {
            "python -c pass": repeated([sys.executable, "-c", "pass"], home=home, repeats=repeats),
            "remask runs (no runs)": repeated([*remask, "runs"], home=Path(place) / "none", repeats=repeats),
        }
        for arguments in COMMANDS:
            seconds[" ".join(["remask", *arguments])] = repeated([*remask, *arguments], home=home, repeats=repeats)
        size = Registry(home).path.stat().st_size
    return {"runs": runs, "evaluations": runs * evaluations, "registry_bytes": size, "cpu_seconds": seconds}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="synthetic runs (1000)")
    parser.add_argument("--evaluations", type=int, default=2, help="evaluations of each (2)")
    parser.add_argument("--repeats", type=int, default=5, help="of each command (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object, and nothing else")
    given = parser.parse_args()
    found = measure(given.runs, evaluations=given.evaluations, repeats=given.repeats)
    if given.json:
        print(json.dumps(found))
        return
    mebibytes = found["registry_bytes"] / 2**20
    print(f"{found['runs']} runs, {found['evaluations']} evaluations, registry.sqlite {mebibytes:.1f} MiB")
    for command, seconds in found["cpu_seconds"].items():
        print(f"{command:<28} CPU s: least {seconds['least']:.3f}  median {seconds['median']:.3f}")


if __name__ == "__main__":
    main()
