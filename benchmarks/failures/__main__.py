"""Seven failures that text-diffusion projects have had, made again on a small scale, and what the monitor says.

Each failure is trained by remask's own loop under its own monitor, with the policies of the recipe; then the same
recipe is mended and trained again. Printed are the monitor's messages, and figures of both. The text is a licence of
11 kB, read byte by byte, so that all of it takes a minute on one core.

Run: .venv/bin/python benchmarks/failures [--only NAME …] [--json]
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cases import CASES
from trial import Case, Trial


def describe(name: str, case: Case) -> Iterator[str]:
    """A case in words."""
    yield f"{name}: {case.what}"
    yield f"  failed: {figures(case.failed)}"
    yield from (f"  says {alarm.kind}: {alarm}" for alarm in case.failed.alarms)
    yield f"  mended, {case.mending}: {figures(case.mended)}"
    yield from (f"  still says {alarm.kind}: {alarm}" for alarm in case.mended.alarms)
    yield f"  {'as it should be' if case.shown else 'NOT AS IT SHOULD BE'}"


def figures(trial: Trial) -> str:
    """A trial's figures in a line."""
    named = trial.to_json().items()
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v!r}" for k, v in named)


def as_json(name: str, case: Case) -> dict[str, Any]:
    """A case as one object."""
    told = {"messages": [str(alarm) for alarm in case.failed.alarms]}
    told |= {"messages_after_mending": [str(alarm) for alarm in case.mended.alarms]}
    both = {"failed": case.failed.to_json(), "mended": case.mended.to_json()}
    return {"failure": name, "what": case.what, "mending": case.mending, "shown": case.shown, **both, **told}


def main() -> None:
    """Prints each failure, what the monitor says, and the mended run; ends with code 1 where one is not shown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--json", action="store_true", help="one object a line")
    args = parser.parse_args()
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            case = CASES[name](Path(folder))
            shown.append(case.shown)
            print(json.dumps(as_json(name, case)) if args.json else "\n".join(describe(name, case)), flush=True)
    raise SystemExit(0 if all(shown) else 1)


if __name__ == "__main__":
    main()
