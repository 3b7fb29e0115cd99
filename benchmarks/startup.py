"""CPU seconds of the commands that must feel instant: `remask --help` and `remask runs`.

Run: .venv/bin/python benchmarks/startup.py [--repeats 5]
Prints one line a command: the least and the median CPU time (user + system) of whole processes, and, as the yardstick
in the same run, those of an interpreter that imports nothing.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence


def cpu_seconds(command: Sequence[str], *, environment: dict[str, str]) -> float:
    """User and system time of one run of `command`, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Times the commands in an empty home and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "remask --help": [sys.executable, "-m", "remask", "--help"],
        "remask runs": [sys.executable, "-m", "remask", "runs"],
    }
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "REMASK_HOME": home}
        for name, command in commands.items():
            cpu_seconds(command, environment=environment)  # fills the file cache and writes bytecode
            times = [cpu_seconds(command, environment=environment) for _ in range(repeats)]
            print(f"{name:16} CPU s: least {min(times):.3f}  median {statistics.median(times):.3f}")


if __name__ == "__main__":
    main()
