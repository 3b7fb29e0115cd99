"""The command line. Nothing here imports torch: each command imports what it needs when it runs."""

import os
import re
import sys
from typing import Annotated, Any, NoReturn

import typer

from remask import __version__
from remask.cli.ablate import app as ablate
from remask.cli.compare import compare
from remask.cli.convert import convert
from remask.cli.decode import decode
from remask.cli.doctor import doctor
from remask.cli.encode import encode
from remask.cli.evaluate import evaluate
from remask.cli.export import export
from remask.cli.imports import import_runs
from remask.cli.interpolate import interpolate
from remask.cli.log import log
from remask.cli.recipes import recipes
from remask.cli.remove import remove
from remask.cli.report import report
from remask.cli.resample import resample
from remask.cli.runs import runs
from remask.cli.sample import sample
from remask.cli.show import show
from remask.cli.submit import submit
from remask.cli.sweep import sweep
from remask.cli.track import track
from remask.cli.train import train
from remask.cli.verdicts import health
from remask.errors import RunError, UserError, did_you_mean

_CLICK: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, wherever this typer keeps it
USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="remask",
    help="Train, sample, evaluate and compare diffusion language models.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool | None) -> None:
    if asked:
        typer.echo(f"remask {__version__}")
        raise typer.Exit


@app.callback()
def remask(
    version: Annotated[
        bool | None,  # typer hands None where it is not given
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = None,
) -> None:
    """Train, sample, evaluate and compare diffusion language models, with every number beside its trivial value."""
    del version


for command in (
    *(train, submit, sweep, convert, sample, evaluate, compare, health, report, export),
    *(encode, decode, resample, interpolate),
    *(runs, show, remove, log, track, recipes, doctor),
):
    app.command()(command)
app.command("import")(import_runs)
app.add_typer(ablate)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; every mistake becomes one line on stderr and an exit code, never a traceback.

    Exit codes: 0 done, 1 the machine or the run failed, 2 the user's mistake, 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=given or ["--help"], prog_name="remask", standalone_mode=False)
    except UserError as error:
        _leave(str(error), USER_MISTAKE)
    except RunError as error:
        _leave(str(error), FAILURE)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
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
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _leave(
            f"not enough memory ({' '.join(str(error).split())[:120] or 'allocation refused'}). Lower network.width, "
            "network.layers, training.micro_batch_size, data.length or sampling.count",
            FAILURE,
        )
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code, and hands codes back instead of leaving with them
        _leave("interrupted", INTERRUPTED)
    if code:
        sys.exit(code)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, numpy or torch found no memory; torch on the CPU says so in words only."""
    said = str(error).lower()
    words = ("out of memory", "allocate memory", "size calculation overflowed")
    return isinstance(error, MemoryError) or any(phrase in said for phrase in words)


def _usage_line(error: Any) -> str:
    """A mistake in the command line in one line: what was given, what is valid, what to do."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "remask"
    message = " ".join(error.format_message().split()).rstrip(".")
    if wrong_command := re.match(r"No such command '(.*?)'", message):
        valid = list(error.ctx.command.commands)
        message = f"there is no command {wrong_command[1]}; {did_you_mean(wrong_command[1], valid)}".rstrip(".")
    unknown = getattr(error, "option_name", None)
    if unknown is not None and error.ctx is not None:
        valid = [name for parameter in error.ctx.command.params for name in parameter.opts if name.startswith("-")]
        message = f"{command} has no option {unknown}; {did_you_mean(unknown, valid)}".rstrip(".")
    return f"{message}. See `{command} --help`"


def _leave(message: str, code: int) -> NoReturn:
    for line in message.splitlines() or ["failed"]:
        print(f"remask: {line}", file=sys.stderr)
    sys.exit(code)
