r"""The final answer of a response: read strictly behind `####`, or flexibly as the last number.

The patterns are those of lm-evaluation-harness' gsm8k ("strict-match" and "flexible-extract", version 3). Answers are
compared as numbers: 1,000 is 1000, $18.00 is 18, and a full stop behind is none of it. The harness compares text
without commas, dollars and a last full stop, and so calls 18.0 for 18 wrong.
"""

import re

from remask.data.tasks.written import MARK

_STRICT = re.compile(r"#### (-?[0-9.,]+)", re.ASCII)
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", re.ASCII)
_NUMBER = re.compile(r"(-?)0*([0-9]*)(?:\.([0-9]*))?", re.ASCII)
_REVERSED = re.compile(r"[0-9](?: ?[0-9])*", re.ASCII)


def strict_answer(response: str) -> str | None:
    """What stands behind the first `#### `, as a number in plain digits; None where nothing does."""
    found = _STRICT.search(response)
    return None if found is None else plain_number(found[1])


def flexible_answer(response: str) -> str | None:
    """The last number of a response in plain digits, wherever it stands; None where there is none."""
    found = [match[0] for match in _FLEXIBLE.finditer(response) if any(map(str.isdigit, match[0]))]
    return plain_number(found[-1]) if found else None


def plain_number(text: str) -> str:
    """A number without dollars, commas, needless zeros and a full stop behind; other text stays as it is."""
    bare = text.strip().replace("$", "").replace(",", "").rstrip(".")
    found = _NUMBER.fullmatch(bare)
    if found is None or not any(map(str.isdigit, bare)):
        return bare
    sign, whole, rest = found[1], found[2] or "0", (found[3] or "").rstrip("0")
    number = f"{whole}.{rest}" if rest else whole
    return number if number == "0" else sign + number


def strict_digits(response: str) -> str | None:
    """The digits behind the last `####`, with spaces between or not; None where anything else stands there."""
    last = response.rpartition(MARK)[2].strip()
    return last.replace(" ", "") if MARK in response and _REVERSED.fullmatch(last) else None


def flexible_digits(response: str) -> str | None:
    """The last run of digits with single spaces between, without the spaces; None where there is none."""
    found = _REVERSED.findall(response)
    return found[-1].replace(" ", "") if found else None
