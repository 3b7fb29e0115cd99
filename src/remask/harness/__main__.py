"""`python -m remask.harness`: lm-evaluation-harness's command, with the model type `remask`."""

import sys

from remask.errors import RunError, UserError


def main() -> None:
    """Runs the harness; a mistake of the user becomes one line on stderr and exit code 2."""
    try:
        from lm_eval.__main__ import cli_evaluate

        import remask.harness  # noqa: F401  registers the model type

        sys.argv[1:] = with_device(sys.argv[1:])
        cli_evaluate()
    except (UserError, RunError) as error:
        print(f"remask: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def with_device(words: list[str]) -> list[str]:
    """A command line on which `--device auto` stands where no device is named: the harness would say cuda:0."""
    named = any(word == "--device" or word.startswith("--device=") for word in words)
    runs = "--model" in words or any(word.startswith("--model=") for word in words)
    return words if named or not runs else [*words, "--device", "auto"]


if __name__ == "__main__":
    main()
