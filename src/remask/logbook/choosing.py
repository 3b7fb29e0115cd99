"""Which runs a log is about."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from remask.errors import UserError, did_you_mean
from remask.runs.record import STATUSES, RunRecord


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What runs must have to be chosen; an empty one chooses all.

    Attributes:
        recipes: one of these recipes.
        families: one of these families.
        tags: all of these tags.
        statuses: one of these.
        since: created then or later, ISO 8601; without a zone it is UTC.
    """

    recipes: Sequence[str] = ()
    families: Sequence[str] = ()
    tags: Sequence[str] = ()
    statuses: Sequence[str] = ()
    since: str | None = None

    def of(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        """The records that are chosen, in their order.

        Raises:
            UserError: a name that no run has, or a date that is none.
        """
        _check("--recipe", self.recipes, (record.recipe for record in records))
        _check("--family", self.families, (record.family for record in records))
        _check("--tag", self.tags, (tag for record in records for tag in record.tags))
        _check("--status", self.statuses, STATUSES)
        since = None if self.since is None else _moment(self.since)
        return [record for record in records if self._fits(record) and (since is None or _since(record, since))]

    def in_words(self) -> str:
        """What is asked of runs, or an empty text."""
        asked = {"recipe": self.recipes, "family": self.families, "tag": self.tags, "status": self.statuses}
        said = [f"{name} {' or '.join(values)}" for name, values in asked.items() if name != "tag" and values]
        said += [f"tag {' and '.join(self.tags)}"] if self.tags else []
        said += [f"since {self.since}"] if self.since is not None else []
        return ", ".join(said)

    def _fits(self, record: RunRecord) -> bool:
        return (
            (not self.recipes or record.recipe in self.recipes)
            and (not self.families or record.family in self.families)
            and (not self.statuses or record.status in self.statuses)
            and set(self.tags) <= set(record.tags)
        )


def _check(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    valid: set[str] | None = None
    for name in given:
        valid = set(known) if valid is None else valid
        if name not in valid:
            hint = did_you_mean(name, valid) if valid else "there are none."
            raise UserError(f"{option} {name}: no run has it; {hint}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--since {text}: give a date as 2026-02-23, or a moment as 2026-02-23T20:33") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _since(record: RunRecord, moment: datetime) -> bool:
    try:
        created = datetime.fromisoformat(record.created)
    except ValueError:
        return False
    return (created if created.tzinfo else created.replace(tzinfo=UTC)) >= moment
