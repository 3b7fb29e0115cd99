"""From a run's metrics to the curves of its loss figure: bits per byte, or the figure of a run without a likelihood."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from remask.health.evidence import OWN_FIGURES, own_figure
from remask.report.reading import Record, named_numbers, number

BITS = "bits per byte"
_MOST_POINTS = 1200


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What the loss figure draws.

    Attributes:
        train: (step, figure) of the training batches; long runs are averaged in neighbouring groups.
        smooth: the same after a centred running mean.
        validation: (step, figure, standard error or 0) on held-out text.
        trivial: the figure of the named trivial predictors.
        unit: of them all, in words.
    """

    train: Sequence[tuple[float, float]] = ()
    smooth: Sequence[tuple[float, float]] = ()
    validation: Sequence[tuple[float, float, float]] = ()
    trivial: Mapping[str, float] = field(default_factory=dict)
    unit: str = BITS

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw but the trivial lines."""
        return not self.train and not self.validation


def curves_of(metrics: Iterable[Record], *, trivial: Mapping[str, float]) -> Curves:
    """Collects the curves of a run.

    Args:
        metrics: the lines of `metrics.jsonl`.
        trivial: what trivial predictors get for the figure.
    """
    records = list(metrics)
    name = figure_of(records)
    train = [(step, value) for step, value, _ in _points(records, kind="train", name=name)]
    drawn = thinned(train)
    return Curves(
        train=drawn,
        smooth=_smooth(drawn),
        validation=_points(records, kind="validation", name=name),
        trivial=trivial,
        unit=OWN_FIGURES.get(name, BITS),
    )


def minimised_of(metrics: Iterable[Record]) -> list[tuple[float, float]]:
    """(step, training loss) where the loss is not a likelihood (a curriculum, a reweighting), else nothing."""
    found = []
    for record in metrics:
        step, loss = number(record.get("step")), number(record.get("loss"))
        if record.get("kind") == "train" and "bits_per_byte" not in record and step is not None and loss is not None:
            found.append((step, loss))
    return thinned(found)


def figure_of(metrics: Iterable[Record]) -> str:
    """The figure that a run is judged by: bits per byte, or its own where it gives text no likelihood."""
    lines = (record for record in metrics if record.get("kind") == "trivial")
    return next((own for line in lines if (own := own_figure(line))), "bits_per_byte")


def trivial_of(metrics: Iterable[Record]) -> dict[str, float]:
    """What trivial predictors get for the figure that a run is judged by, as training wrote it; maybe nothing."""
    records = list(metrics)
    name = figure_of(records)
    lines = (named_numbers(record.get(name)) for record in records if record.get("kind") == "trivial")
    return next((found for found in reversed(list(lines)) if found), {})


def trivial_bits_per_byte(metrics: Iterable[Record]) -> dict[str, float]:
    """Bits per byte of the trivial predictors as the training run wrote them, empty where it wrote none."""
    found: dict[str, float] = {}
    for record in metrics:
        if record.get("kind") == "trivial":
            found = named_numbers(record.get("bits_per_byte")) or found
    return found


def predictor_name(name: str) -> str:
    """A trivial predictor's name in words: `byte 2-gram` becomes `byte bigram`."""
    words = {"1-gram": "unigram", "2-gram": "bigram", "3-gram": "trigram"}
    plain = "token unigram" if name == "unigram" else name
    return " ".join(words.get(word, word) for word in plain.split(" "))


def short(value: float) -> str:
    """A figure in bits per byte as the chart and the captions show it."""
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.3g}"


def frame_of(curves: Curves) -> tuple[float, float]:
    """The lowest and highest bits per byte to show.

    The first steps stand near log V, far above everything that follows: they may leave the frame, so that
    the distances to the trivial lines can be read. Validation, every n-gram line and the second half of
    training always stand inside it.
    """
    late = [value for _, value in curves.smooth[len(curves.smooth) // 2 :]]
    inside = late + [value for _, value, _ in curves.validation]
    inside += [value for name, value in curves.trivial.items() if name != "uniform"]
    low, high = min(inside, default=0.0), max(inside, default=1.0)
    margin = 0.09 * (high - low) or 0.1 * abs(high) or 0.5
    return max(low - margin, 0.0), high + margin


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Moves labels apart until neighbours are a gap away from each other, as little as possible.

    Args:
        wanted: where each label would like to stand, in any order.
        gap: the least distance of two labels.
        low: the lowest place for a label.
        high: the highest place for a label.

    Returns:
        The places, in the order of `wanted`. Where the gap does not fit, labels share what there is.
    """
    count = len(wanted)
    if count > 1:
        gap = min(gap, (high - low) / (count - 1))
    order = sorted(range(count), key=wanted.__getitem__)
    # Least squares under "neighbours at least a gap apart": with the k-th label shifted by -k·gap that is
    # isotonic regression, solved by pooling neighbours that stand in the wrong order.
    pools: list[list[float]] = []
    for rank, index in enumerate(order):
        pools.append([wanted[index] - rank * gap])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    flat = [_mean(pool) for pool in pools for _ in pool]
    places = [0.0] * count
    for rank, (index, base) in enumerate(zip(order, flat, strict=True)):
        places[index] = min(max(base, low), high - (count - 1) * gap) + rank * gap
    return places


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over neighbouring groups, so that a figure never holds more than some 1200 points a curve."""
    groups = min(len(points), _MOST_POINTS)
    cuts = [k * len(points) // groups for k in range(groups + 1)] if groups else []
    return [
        (_mean([step for step, _ in points[a:b]]), _mean([value for _, value in points[a:b]]))
        for a, b in pairwise(cuts)
    ]


def _points(records: Iterable[Record], *, kind: str, name: str) -> list[tuple[float, float, float]]:
    """(step, figure, standard error or 0) of the records of a kind that hold finite numbers."""
    found = []
    for record in records:
        step, value = number(record.get("step")), number(record.get(name))
        if record.get("kind") == kind and step is not None and value is not None:
            found.append((step, value, number(record.get("stderr")) or 0.0))
    return found


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A running mean over about a twelfth of the curve, centred but at its end.

    It narrows towards the start, where the loss falls steeply and a one-sided mean would lie; at the end,
    where the loss is level, it keeps its reach to the left, so that the last value is not a single batch.
    """
    reach = len(points) // 25
    return [
        (step, _mean([value for _, value in points[k - min(reach, k) : k + min(reach, k) + 1]]))
        for k, (step, _) in enumerate(points)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
