"""Proofs that runs survive what happens to machines: kills, full disks, damaged files, clocks, wrong recipes.

Run: .venv/bin/python benchmarks/reliability kills --count 100
     .venv/bin/python benchmarks/reliability {kills,registry,damage,disk,clock,fuzz} [--help]
Each prints its figures; exit code 1 where something was lost. With --json it prints one JSON object and nothing else.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stage

Proof = Callable[[argparse.Namespace, Path], dict[str, Any]]
SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> int:
    """Runs one proof; 0 where nothing was lost."""
    for name in SINGLE_THREADED:
        os.environ[name] = "1"  # processes are forked, and threads do not survive that; read when torch is loaded
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    arguments = _parser().parse_args()
    with stage.scratch_folder(arguments.scratch) as scratch:
        found = arguments.prove(arguments, scratch)
    if arguments.json:
        print(json.dumps(found))
    else:
        _show(found)
    return 1 if found["lost"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    proofs = parser.add_subparsers(required=True, metavar="PROOF")
    kill = _proof(proofs, "kills", _kills, "SIGKILL at every kind of moment, then resume")
    kill.add_argument("--count", type=int, default=100, help="kills (100)")
    kill.add_argument("--fresh", type=int, default=0, help="of them, in processes started anew, at random times (0)")
    kill.add_argument("--only", action="append", help="what is trained: mdlm, proofread, ar, bd3lm, … (all)")
    registry = _proof(proofs, "registry", _registry, "processes that write the registry while they are killed")
    registry.add_argument("--writers", type=int, default=8, help="processes (8)")
    registry.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    harm = _proof(proofs, "damage", _damage, "every file that is read, damaged in every way")
    harm.add_argument("--share", type=float, default=1.0, help="of all cases (1.0)")
    full = _proof(proofs, "disk", _disk, "a disk that fills up")
    full.add_argument("--count", type=int, default=40, help="trainings whose disk fills up (40)")
    jumps = _proof(proofs, "clock", _clock, "a wall clock that jumps")
    jumps.add_argument("--count", type=int, default=20, help="runs (20)")
    wrong = _proof(proofs, "fuzz", _fuzz, "recipes with every kind of mistake, through the command line")
    wrong.add_argument("--count", type=int, default=1000, help="configurations (1000)")
    return parser


def _proof(proofs: Any, name: str, prove: Proof, text: str) -> argparse.ArgumentParser:
    proof = proofs.add_parser(name, help=text, description=text)
    proof.set_defaults(prove=prove)
    proof.add_argument("--seed", type=int, default=1, help="decides what is drawn (1)")
    proof.add_argument("--jobs", type=int, default=1, help="processes side by side (1)")
    proof.add_argument("--scratch", type=Path, help="an empty folder that is kept; else one that is removed")
    proof.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    return proof


# each proof is imported when it runs: the registry's needs no torch, and only the fuzzer needs hypothesis


def _kills(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import kills

    stage.preload()
    return kills.run(
        count=arguments.count,
        jobs=arguments.jobs,
        fresh=arguments.fresh,
        only=arguments.only or list(kills.VARIANTS),
        seed=arguments.seed,
        scratch=scratch,
    )


def _registry(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import writers

    return writers.run(writers=arguments.writers, seconds=arguments.seconds, seed=arguments.seed, scratch=scratch)


def _damage(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import damage

    stage.preload()
    return damage.run(share=arguments.share, jobs=arguments.jobs, seed=arguments.seed, scratch=scratch)


def _disk(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import disk

    stage.preload()
    return disk.run(count=arguments.count, seed=arguments.seed, scratch=scratch)


def _clock(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import clock

    stage.preload()
    return clock.run(count=arguments.count, seed=arguments.seed, scratch=scratch)


def _fuzz(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import fuzz

    stage.preload()
    return fuzz.run(count=arguments.count, jobs=arguments.jobs, seed=arguments.seed, scratch=scratch)


def _show(found: dict[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, inner in value.items():
                print(f"  {inner!s:>6}  {key}")
        elif isinstance(value, list):
            print(f"{name}: {len(value)}")
            for inner in value:
                print(f"  {inner}")
        else:
            print(f"{name}: {value}")


if __name__ == "__main__":
    sys.exit(main())
