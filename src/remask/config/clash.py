"""How it is said that two keys of a recipe do not go together."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Two keys that disagree.

    Attributes:
        keys: the dotted keys (or sections) that disagree; the message is about the last one.
        message: one line: what was given, why it does not fit, what to do.
    """

    keys: tuple[str, ...]
    message: str


def clash(*keys: str, given: object, but: str, give: str) -> Contradiction:
    """Keys that disagree, in one sentence about the last of them.

    Args:
        keys: dotted.
        given: the value of the last one.
        but: why it does not fit.
        give: what to give instead.
    """
    value = "null" if given is None else given
    return Contradiction(keys=keys, message=f"{keys[-1]}: {value} given, but {but}; give {give}")
