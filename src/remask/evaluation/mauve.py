"""MAUVE: how near the distribution of samples is to that of text, seen through a model's hidden states.

Pillutla et al., arXiv:2102.01454: hidden states of samples and of text are cut into buckets by k-means, which gives
two histograms p and q; with r_w = w p + (1 − w) q, MAUVE is the area under the curve of

    (exp(−c KL(q ‖ r_w)), exp(−c KL(p ‖ r_w))),    0 < w < 1,    c = 5:

1 where the histograms agree, near 0 where no bucket holds both. It depends on the features, on the number of texts
and on the buckets, so it compares under one protocol only, and it stands beside what other held-out text gets (as good
as so few texts can look) and what samples of n-gram models get.

Shape letters: n texts, D width of a hidden state.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from remask.errors import UserError
from remask.evaluation.measurement import Measurement

States = npt.NDArray[np.floating]

SCALING = 5
"""C of the equation, as in the paper."""
SEEDS = 5
"""K-means starts, numbered from 0, whose scores are averaged, since one start decides the second digit."""
PAPER_TEXTS = 5000
"""Texts on each side in the paper."""
ENOUGH_A_BUCKET = 5
"""Texts a bucket below which the histograms are mostly noise."""


def buckets_for(count: int) -> int:
    """The paper's rule: one bucket for ten texts (500 for 5000), at least 2."""
    return max(2, round(count / 10))


def check_installed() -> None:
    """Refuses where the package that computes MAUVE is missing.

    Raises:
        UserError: the package mauve-text is not installed.
    """
    if find_spec("mauve") is None:
        raise UserError("MAUVE needs the package mauve-text, which is not installed: pip install 'remask[mauve]'")


def mauve_score(samples: States, text: States, *, buckets: int) -> float:
    """MAUVE of samples against text, from 0 to 1: the mean over `SEEDS` starts of k-means.

    Args:
        samples: hidden states [n D].
        text: hidden states of as many texts [n D].
        buckets: of the histograms, at least 2.

    Returns:
        the same number for the same arguments, whatever the number of threads.

    Raises:
        UserError: the package mauve-text is not installed.
    """
    check_installed()
    from mauve import compute_mauve  # seconds to import, and only this figure needs it

    with _quiet():
        scores = [
            compute_mauve(
                p_features=samples,
                q_features=text,
                num_buckets=buckets,  # pyright: ignore[reportArgumentType] inferred from the default
                mauve_scaling_factor=SCALING,
                seed=start,
            ).mauve
            for start in range(SEEDS)
        ]
    return float(np.mean(scores))


def mauve_measurement(
    samples: States,
    text: States,
    *,
    others: Mapping[str, States],
    buckets: int,
    protocol: Mapping[str, Any],
) -> Measurement:
    """`mauve` of samples against held-out text, beside that of other sets against the same text.

    There is no standard error: the score of a subset is biased, so resampling would say nothing of this one.

    Args:
        samples: hidden states of the samples [n D].
        text: of held-out text [n D].
        others: of other held-out text and of n-gram samples [n D], by name.
        buckets: of the histograms.
        protocol: the features and how the samples were drawn.
    """
    facts = {"samples": len(samples), "buckets": buckets, "scaling": SCALING, "kmeans_starts": SEEDS}
    return Measurement(
        name="mauve",
        value=mauve_score(samples, text, buckets=buckets),
        unit="0 to 1",
        n=len(samples),
        stderr=None,
        trivial={name: mauve_score(states, text, buckets=buckets) for name, states in others.items()},
        protocol={**protocol, **facts},
    )


def mauve_caution(measurement: Measurement) -> str | None:
    """What to be careful about, in words; None where the number of texts is the paper's."""
    n, buckets = measurement.n, int(measurement.protocol["buckets"])
    if n >= PAPER_TEXTS:
        return None
    noise = " With so few texts a bucket it is mostly noise." if n < ENOUGH_A_BUCKET * buckets else ""
    return (
        f"MAUVE of {n} texts in {buckets} buckets: the paper has {PAPER_TEXTS}, and with fewer the score is coarse and "
        f"rises or falls with their number. Read it beside other held-out text, not beside a paper's.{noise}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the clustering library writes to the process's standard error: it asks for 39 points a bucket."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
