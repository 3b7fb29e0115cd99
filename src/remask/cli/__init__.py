"""The command line. Nothing here imports torch: each command imports what it needs when it runs."""

import os
import sys
from typing import Annotated, Any

import typer

from remask import __version__
from remask.cli.doctor import doctor
from remask.cli.evaluate import evaluate, health
from remask.cli.recipes import recipes
from remask.cli.report import report
from remask.cli.runs import runs, show
from remask.cli.sample import sample
from remask.cli.train import train
from remask.errors import RunError, UserError, did_you_mean

_CLICK: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, wherever this typer keeps it
USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="remask",
    help="Train, sample, evaluate and compare diffusion language models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"remask {__version__}")
        raise typer.Exit


@app.callback()
def remask(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Train, sample, evaluate and compare diffusion language models, with every number beside its trivial value."""
    del version


for command in (train, sample, evaluate, health, report, runs, show, recipes, doctor):
    app.command()(command)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; every mistake becomes one line on stderr and an exit code, never a traceback.

    Exit codes: 0 done, 1 the machine or the run failed, 2 the user's mistake, 130 interrupted.
    """
    try:
        app(args=arguments, standalone_mode=False)
    except UserError as error:
        _leave(str(error), USER_MISTAKE)
    except RunError as error:
        _leave(str(error), FAILURE)
    except (KeyboardInterrupt, typer.Abort):
        _leave("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # the reader (head, less) has gone; keep the interpreter from complaining when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        _leave(
            f"the system refused{place}: {error.strerror or error}. Check space and permissions there",
            FAILURE,
        )
    except _CLICK as error:
        _leave(_usage_line(error), USER_MISTAKE)


def _usage_line(error: Any) -> str:
    """A mistake in the command line in one line: what was given, what is valid, what to do."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "remask"
    message = " ".join(error.format_message().split()).rstrip(".")
    unknown = getattr(error, "option_name", None)
    if unknown is not None and error.ctx is not None:
        valid = [name for parameter in error.ctx.command.params for name in parameter.opts if name.startswith("-")]
        message = f"{command} has no option {unknown}; {did_you_mean(unknown, valid)}".rstrip(".")
    return f"{message}. See `{command} --help`"


def _leave(message: str, code: int) -> None:
    for line in message.splitlines() or ["failed"]:
        print(f"remask: {line}", file=sys.stderr)
    sys.exit(code)
