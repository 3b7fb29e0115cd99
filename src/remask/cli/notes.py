"""What an author notes of a run or an evaluation: a conclusion, tags and links, as options of a command."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from remask.runs import EvaluationRecord, RunRecord

Conclude = Annotated[str | None, typer.Option(metavar="TEXT", help="Store what was learned; an empty text removes it.")]
Tag = Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Add a label; may be given again.")]
Untag = Annotated[list[str] | None, typer.Option(metavar="LABEL", help="Remove a label; may be given again.")]
Link = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=URL", help="Store an address; an empty one removes it; may be given again."),
]


def changes(
    record: "RunRecord | EvaluationRecord",
    *,
    conclude: str | None,
    tag: Sequence[str] | None,
    untag: Sequence[str] | None,
    link: Sequence[str] | None,
) -> dict[str, Any]:
    """The fields of the record that the options change; none where none was given.

    Raises:
        UserError: a label or a link cannot be stored, or one that is to be removed is not there.
    """
    changed: dict[str, Any] = {}
    if conclude is not None:
        changed["conclusion"] = conclude.strip() or None
    if tag or untag:
        changed["tags"] = _tags(record.tags, added=tag or (), removed=untag or ())
    if link:
        changed["links"] = _links(record.links, link)
    return changed


def _tags(tags: Sequence[str], *, added: Sequence[str], removed: Sequence[str]) -> list[str]:
    kept = dict.fromkeys(tags)
    for label in removed:
        if label not in kept:
            raise UserError(f"--untag {label}: there is no such tag; {_there_are(label, kept)}")
        del kept[label]
    for label in added:
        if not label.strip() or not label.isprintable() or "," in label:
            raise UserError(f"--tag '{label}': a label is a printable word or phrase without commas")
        kept[label.strip()] = None
    return list(kept)


def _links(links: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    kept = dict(links)
    for link in given:
        name, equals, address = (part.strip() for part in link.partition("="))
        if not name or not equals or not name.isprintable():
            raise UserError(f"--link {link}: write NAME=URL, e.g. wandb=https://wandb.ai/me/project/runs/x")
        if address:
            kept[name] = _checked(address, link)
        elif name in kept:
            del kept[name]
        else:
            raise UserError(f"--link {link}: there is no such link to remove; {_there_are(name, kept)}")
    return kept


def _checked(address: str, link: str) -> str:
    scheme, _, rest = address.partition("://")
    if scheme.lower() not in ("http", "https") or not rest or not address.isprintable() or " " in address:
        raise UserError(f"--link {link}: an address begins with http:// or https:// and has no blanks")
    return address


def _there_are(given: str, names: Mapping[str, Any]) -> str:
    return did_you_mean(given, names) if names else "there are none"
