"""What drawn thoughts look like: whether they say one thing over and over, or the same to every question.

Some texts are drawn to each of some questions of one length, and the k-th text of every question from the same noise.
A network that reads its question then says something else to each, and one that does not says the same to all.

Shape letters: Q questions, K texts drawn to each.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from remask.evaluation.measurement import Measurement
from remask.evaluation.quality import distinct_samples, repetition

Ids = npt.NDArray[np.integer]
HELD_OUT = "held-out text"


def drawn_measurements(
    drawn: Sequence[Sequence[Ids]], held_out: Sequence[Ids], *, protocol: Mapping[str, Any]
) -> list[Measurement]:
    """`repetition`, `id_0_share`, `distinct_over_questions` and `distinct_over_noise`, shares from 0 to 1.

    Args:
        drawn: K texts to each of Q questions, each up to its end of text; the k-th of each from the same noise.
        held_out: the text's own responses to these questions.
        protocol: how they were drawn.

    Returns:
        the figures that there are: none of repetition where no text has 4 tokens. `distinct_over_noise` has no
        trivial value, since a question with one right answer has one right text.
    """
    texts = [text for row in drawn for text in row]
    found = [
        _mean("repetition", _repetitions(texts), beside=_repetitions(held_out), protocol=protocol),
        _mean("id_0_share", _zeros(texts), beside=_zeros(held_out), protocol=protocol),
        _mean(
            "distinct_over_questions",
            over_questions(drawn),
            beside=over_questions([[t] for t in held_out]),
            protocol=protocol,
        ),
        _mean(
            "distinct_over_noise", np.array([distinct_samples(row) for row in drawn]), beside=None, protocol=protocol
        ),
    ]
    return [figure for figure in found if figure is not None]


def over_questions(drawn: Sequence[Sequence[Ids]]) -> npt.NDArray[np.float64]:
    """Of the texts from one noise, the share that differ from those of all earlier questions; for each noise [K].

    1/Q for who says the same to all.
    """
    return np.array([distinct_samples([row[k] for row in drawn]) for k in range(len(drawn[0]))], dtype=np.float64)


def _repetitions(texts: Sequence[Ids]) -> npt.NDArray[np.float64]:
    return np.array([repetition(text) for text in texts if len(text) >= 4], dtype=np.float64)


def _zeros(texts: Sequence[Ids]) -> npt.NDArray[np.float64]:
    """Of each text that is not empty the share of id 0."""
    return np.array([float((np.asarray(text) == 0).mean()) for text in texts if len(text)], dtype=np.float64)


def _mean(
    name: str,
    values: npt.NDArray[np.float64],
    *,
    beside: npt.NDArray[np.float64] | None,
    protocol: Mapping[str, Any],
) -> Measurement | None:
    if not len(values):
        return None
    n = len(values)
    trivial = {HELD_OUT: float(beside.mean())} if beside is not None and len(beside) else {}
    return Measurement(
        name=name,
        value=float(values.mean()),
        unit="share",
        n=n,
        stderr=float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        trivial=trivial,
        protocol=dict(protocol),
    )
