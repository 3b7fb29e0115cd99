"""`python -m remask.harness`: lm-evaluation-harness's command, with the model type `remask`."""

import sys
from pathlib import Path

from remask.errors import RunError, UserError

TASKS = Path(__file__).parent / "tasks"
"""Where remask's own tasks lie."""


def main() -> None:
    """Runs the harness; a mistake of the user becomes one line on stderr and exit code 2."""
    try:
        from lm_eval.__main__ import cli_evaluate

        import remask.harness  # noqa: F401  registers the model type

        sys.argv[1:] = with_reasoning(with_device(sys.argv[1:]))
        cli_evaluate()
    except (UserError, RunError) as error:
        print(f"remask: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def with_device(words: list[str]) -> list[str]:
    """A command line on which `--device auto` stands where no device is named: the harness would say cuda:0."""
    named = any(word == "--device" or word.startswith("--device=") for word in words)
    runs = "--model" in words or any(word.startswith("--model=") for word in words)
    return words if named or not runs else [*words, "--device", "auto"]


def with_reasoning(words: list[str]) -> list[str]:
    """A command line on which `--reasoning FOLDER` became remask's reasoning tasks, read from that folder.

    Raises:
        UserError: the folder is not named, or other tasks or facts of tasks are given beside it.
    """
    if "--reasoning" not in words:
        return words
    place = words.index("--reasoning")
    if place + 1 == len(words) or words[place + 1].startswith("--"):
        raise UserError("--reasoning needs the folder of the tasks' files, e.g. --reasoning data --tasks remask_gsm8k")
    for given in ("--include_path", "--metadata"):
        if given in words or any(word.startswith(f"{given}=") for word in words):
            raise UserError(
                f"{given} is given beside --reasoning, which stands for --include_path {TASKS} --metadata "
                "reasoning=FOLDER: write both out"
            )
    own = ["--include_path", str(TASKS), "--metadata", f"reasoning={words[place + 1]}"]
    return [*words[:place], *words[place + 2 :], *own]


if __name__ == "__main__":
    main()
