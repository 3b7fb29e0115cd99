"""How many prompts are answered right, beside what answers without a network get."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from remask.evaluation.measurement import Examples, Measurement, identity_of

Right = Callable[[str, str, str], bool]
"""(prompt, response, reference) → whether the response is right."""

COUNTED_RESPONSES = 200_000
"""Training responses among which the most common one is looked for."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One drawn response.

    Attributes:
        prompt: what was asked.
        reference: the response that the text has.
        response: what was drawn, up to its end of text; None where the prompt left no place for any.
        ended: whether it came to an end of text.
    """

    prompt: str
    reference: str
    response: str | None
    ended: bool


def most_common_response(responses: Iterable[str]) -> str:
    """The response that occurs most often, the first of equals; of a long text the first 200 000 are counted."""
    ((response, _),) = Counter(islice(responses, COUNTED_RESPONSES)).most_common(1)
    return response


def answer_measurements(
    answers: Sequence[Answer],
    *,
    right: Right,
    trivial: Mapping[str, Callable[[Answer], Sequence[str]]],
    protocol: Mapping[str, Any],
) -> list[Measurement]:
    """The share of right answers, of answers equal to the text's own, and of those that came to an end.

    Args:
        answers: one for each prompt; one without a response is wrong.
        right: the checker.
        trivial: responses of predictors without a network to one prompt, whose mean stands beside the share.
        protocol: what decides whether two figures compare.

    Returns:
        `answers_right`, `answers_equal` and `answers_ended`, shares from 0 to 1.

    Raises:
        ValueError: there is no answer.
    """
    if not answers:
        raise ValueError("there is no answer to judge")
    identity = identity_of("prompts", [[answer.prompt, answer.reference] for answer in answers])
    facts = {"protocol": protocol, "identity": identity}
    return [
        share_right("answers_right", answers, right=right, trivial=trivial, **facts),
        share_right("answers_equal", answers, right=_equal, trivial=trivial, **facts),
        share_ended(answers, **facts),
    ]


def share_right(
    name: str,
    answers: Sequence[Answer],
    *,
    right: Right,
    trivial: Mapping[str, Callable[[Answer], Sequence[str]]],
    protocol: Mapping[str, Any],
    identity: str,
) -> Measurement:
    """The share of answers that a checker calls right.

    Args:
        name: of the figure.
        answers: one for each prompt, at least one; one without a response is wrong.
        right: the checker.
        trivial: responses of predictors without a network to one prompt, whose mean stands beside the share.
        protocol: what decides whether two figures compare.
        identity: which prompts these are.
    """
    values = np.array([a.response is not None and right(a.prompt, a.response, a.reference) for a in answers])
    beside = {
        who: float(np.mean([np.mean([right(a.prompt, text, a.reference) for text in say(a)]) for a in answers]))
        for who, say in trivial.items()
    }
    return _share(name, values.astype(np.float64), trivial=beside, protocol=protocol, identity=identity)


def share_ended(answers: Sequence[Answer], *, protocol: Mapping[str, Any], identity: str) -> Measurement:
    """The share of answers that came to an end, `answers_ended`."""
    values = np.array([answer.ended for answer in answers], dtype=np.float64)
    trivial = {"every text of the data": 1.0}
    return _share("answers_ended", values, trivial=trivial, protocol=protocol, identity=identity)


def share_error(count: float, n: int) -> float:
    """The standard error of a share of n, after Agresti and Coull (The American Statistician 1998, 52, 119–126).

    Two of each kind are added to those that were seen: none right of 10 does not show that none ever is.
    """
    share = (count + 2) / (n + 4)
    return math.sqrt(share * (1 - share) / (n + 4))


def _equal(prompt: str, response: str, reference: str) -> bool:
    del prompt
    return response == reference


def _share(
    name: str,
    values: npt.NDArray[np.float64],
    *,
    trivial: Mapping[str, float],
    protocol: Mapping[str, Any],
    identity: str,
) -> Measurement:
    n = len(values)
    return Measurement(
        name=name,
        value=float(values.mean()),
        unit="share",
        n=n,
        stderr=share_error(float(values.sum()), n),
        trivial=dict(trivial),
        protocol=dict(protocol),
        examples=Examples(identity=identity, values=values.tolist()),
    )
