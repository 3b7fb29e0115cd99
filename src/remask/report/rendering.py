"""From a context to a page: one HTML text that needs nothing but itself, written in one step."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from remask.errors import UserError
from remask.report.colours import PALETTE, REVEAL_BINS, SERIES
from remask.report.reading import printable
from remask.runs import write_atomic

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page as HTML, the same bytes for the same context; every text in it is escaped.

    Args:
        template: a file of the folder `templates`.
        context: what it shows; only `Markup` stands unescaped.
    """
    html = _environment().get_template(template).render(context)
    # What no UTF-8 file can hold (a lone surrogate from a torn token) has been replaced by `printable`
    # in texts; this catches names and keys.
    return html.encode("utf-8", "replace").decode("utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """The templates, each read and compiled once a process."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["printable"] = printable
    environment.globals.update(palette=PALETTE, bins=range(REVEAL_BINS), series=range(SERIES))
    return environment


def write_page(file: Path, html: str) -> None:
    """Writes a page in one step: a reader never sees half of it.

    Raises:
        RunError: the disk is full or the folder is read-only; an older page is untouched.
    """
    write_atomic(file, html)


def check_place(file: Path) -> None:
    """Sees to it that a page can be written, before the work of making it.

    Raises:
        UserError: the file is a folder, or lies in none.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the page's file name, e.g. {file / 'report.html'}")
    if not file.parent.is_dir():
        raise UserError(f"{file} cannot be written: there is no folder {file.parent}; make it first")
