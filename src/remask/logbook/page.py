"""The log as a Markdown page."""

from remask.logbook.book import EVALUATION_COLUMNS, RUN_COLUMNS, Log
from remask.logbook.markdown import escaped, table


def log_page(log: Log) -> str:
    """The whole page; the same records give the same bytes.

    Args:
        log: from `gather_log`.
    """
    about = f" ({escaped(log.asked)})" if log.asked else ""
    lines = [
        "# Experiment log",
        "",
        f"Made by `remask log` from the records in `{log.home}`{about}, the newest of {log.newest or 'none'}. "
        "Do not edit: the next one replaces it. A conclusion is stored with `remask show RUN --conclude TEXT`.",
        "",
        f"## Training runs: {len(log.runs)}",
        "",
        *(table(RUN_COLUMNS, log.runs) or ["None yet: `remask train` starts one."]),
        "",
        *_explanation(log.run_groups),
        f"## Evaluations: {len(log.evaluations)}",
        "",
        *(table(EVALUATION_COLUMNS, log.evaluations) or ["None yet: `remask evaluate RUN` makes one."]),
        "",
        *_explanation(log.evaluation_groups),
        "A figure stands beside what trivial predictors get for it, in parentheses (unigram: of tokens; 2-gram: of "
        "bytes). ≤ marks an upper bound: the true value may be lower. Times are UTC.",
    ]
    return "\n".join(lines) + "\n"


def _explanation(groups: int) -> list[str]:
    """What a bold figure means; nothing where none is."""
    if not groups:
        return []
    many = "1 group" if groups == 1 else f"{groups} groups"
    return [
        f"**Bold** is the best of a group of two or more rows whose figure is the same quantity: the same text, "
        f"split, rows, tokenizer (where it matters) and protocol; here {many}. Figures of different groups cannot be "
        "compared. "
        "Budgets, sampling and whether a figure is a bound may differ within one: `remask compare` says so.",
        "",
    ]
