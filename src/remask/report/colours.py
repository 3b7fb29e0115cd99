"""The page's colours, each once, for light and dark; figures and text both refer to them by role."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

REVEAL_BINS = 8
"""The number of colours that stand for the time at which a token was revealed."""

# matplotlib's `plasma`, sampled at equal distances: ordered by hue and by lightness, so that it also reads
# in grey and for colour-blind readers. The light page takes its darker part, the dark page its lighter part.
_PLASMA_ON_LIGHT = ("#20068f", "#5302a3", "#8104a7", "#a82296", "#c8437b", "#e16462", "#f48948", "#fdb22f")
_PLASMA_ON_DARK = ("#8f0da4", "#ad2793", "#c6417d", "#da5a6a", "#eb7556", "#f79342", "#fdb22f", "#fbd724")

# Lines that stand for equals. Each reads as text on page and panel of its theme, and neighbours differ in hue and in
# lightness; dashes and signs tell them apart where colour does not.
_SERIES_ON_LIGHT = ("#1d5fa5", "#b04a04", "#1f7a4d", "#7a3db0", "#b5296b", "#0c7180", "#6b6509", "#7a4a30")
_SERIES_ON_DARK = ("#74b4ff", "#f79c52", "#62cb94", "#c69ff2", "#f58bb8", "#58c7d5", "#cbc350", "#d8a788")
SERIES = len(_SERIES_ON_LIGHT)
"""The number of colours for lines that stand for equals."""


@dataclass(frozen=True)
class Pair:
    """One role's colour on a light and on a dark page, as `#rrggbb`."""

    light: str
    dark: str


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours after WCAG 2.1, from 1 (equal) to 21 (black on white)."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [channel / 255 for channel in _channels(colour)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _mix(colour: str, page: str, *, share: float) -> str:
    """`share` of the colour over the page's colour."""
    pairs = zip(_channels(colour), _channels(page), strict=True)
    return "#" + "".join(f"{round(share * c + (1 - share) * p):02x}" for c, p in pairs)


def _behind_text(colour: str, *, page: str, ink: str) -> str:
    """The strongest tint of a colour on which the ink still reads well (contrast of 5.5 or more)."""
    shares = (share / 100 for share in range(60, 9, -1))
    tints = (_mix(colour, page, share=share) for share in shares)
    return next((tint for tint in tints if contrast(tint, ink) >= 5.5), page)


_PAGE, _INK = Pair("#fcfcfa", "#15171b"), Pair("#1b1d22", "#e9e8e4")


def _palette() -> dict[str, Pair]:
    roles = {
        "page": _PAGE,
        "ink": _INK,
        "quiet": Pair("#5c6068", "#a3a7af"),
        "line": Pair("#dcdcd6", "#33363d"),
        "panel": Pair("#f3f3ef", "#1d2026"),
        "train": Pair("#2b6cb0", "#6cb0f5"),
        "train-faint": Pair("#b9d0e8", "#2c4a69"),
        "validation": Pair("#c2410c", "#fb923c"),
        "trivial": Pair("#6b7078", "#9aa0aa"),
        "bad": Pair("#b3261e", "#ff8a80"),
        "mask": Pair("#c9cad0", "#484c56"),
    }
    for k, (on_light, on_dark) in enumerate(zip(_SERIES_ON_LIGHT, _SERIES_ON_DARK, strict=True)):
        roles[f"series-{k}"] = Pair(on_light, on_dark)
    for k, (on_light, on_dark) in enumerate(zip(_PLASMA_ON_LIGHT, _PLASMA_ON_DARK, strict=True)):
        roles[f"dot-{k}"] = Pair(on_light, on_dark)
        roles[f"reveal-{k}"] = Pair(
            _behind_text(on_light, page=_PAGE.light, ink=_INK.light),
            _behind_text(on_dark, page=_PAGE.dark, ink=_INK.dark),
        )
    return roles


PALETTE: Mapping[str, Pair] = MappingProxyType(_palette())
"""Every role of the page, by the name of its CSS variable."""


def reveal_bin(step: int, *, steps: int) -> int:
    """The colour of a token revealed at a step in 1..steps, from 0 (early) to `REVEAL_BINS` - 1 (late)."""
    return min((max(step, 1) - 1) * REVEAL_BINS // steps, REVEAL_BINS - 1)
