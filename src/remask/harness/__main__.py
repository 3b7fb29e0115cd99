"""`python -m remask.harness`: lm-evaluation-harness's command, with the model type `remask`."""

import sys

from remask.errors import RunError, UserError


def main() -> None:
    """Runs the harness; a mistake of the user becomes one line on stderr and exit code 2."""
    try:
        from lm_eval.__main__ import cli_evaluate

        import remask.harness  # noqa: F401  registers the model type

        cli_evaluate()
    except (UserError, RunError) as error:
        print(f"remask: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


if __name__ == "__main__":
    main()
