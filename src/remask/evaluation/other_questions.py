"""Rows with the questions of other rows, for what a question is worth.

Shape letters: B rows of a batch, L places.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from remask.data.batch import Batch


def other_questions(batches: Sequence[Batch]) -> list[Batch | None]:
    """The rows with another row's question, one of the same length where there is one; None where there is none.

    A response stands behind its new question as it is, so that a row may become a little longer or shorter.
    """
    rows = [(ids[~to & (part > 0)], ids[to]) for b in batches for ids, part, to in _rows(b)]
    partners = partners_of([tuple(question.tolist()) for question, _ in rows])
    if partners is None:
        return [None] * len(batches)
    found, at = [], 0
    for batch in batches:
        here = range(at, at + len(batch))
        found.append(_with_questions(batch, [rows[partners[k]][0] for k in here], [rows[k][1] for k in here]))
        at += len(batch)
    return found


def _rows(batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    return zip(batch.ids, batch.segments, batch.targets, strict=True)


def partners_of(questions: Sequence[tuple[int, ...]]) -> list[int] | None:
    """For each question the number of an unlike one that is nearest in length; None where a row has none or all agree.

    Of several, the next in order of length, then of place.
    """
    if not all(questions) or len(set(questions)) < 2:
        return None
    order = sorted(range(len(questions)), key=lambda k: (len(questions[k]), k))
    partners = [0] * len(questions)
    for place, own in enumerate(order):
        after = next((k for k in order[place + 1 :] if questions[k] != questions[own]), None)
        before = next((k for k in reversed(order[:place]) if questions[k] != questions[own]), None)
        far = {k: abs(len(questions[k]) - len(questions[own])) for k in (after, before) if k is not None}
        partners[own] = min(far, key=far.__getitem__)
    return partners


def _with_questions(batch: Batch, questions: Sequence[Tensor], responses: Sequence[Tensor]) -> Batch:
    length = max(len(asked) + len(said) for asked, said in zip(questions, responses, strict=True))
    ids = batch.ids.new_zeros(len(questions), length)
    targets = torch.zeros_like(ids, dtype=torch.bool)
    for row, (asked, said) in enumerate(zip(questions, responses, strict=True)):
        end = len(asked) + len(said)
        ids[row, :end] = torch.cat([asked, said])
        targets[row, len(asked) : end] = True
    real = torch.arange(length, device=ids.device) < (targets.sum(-1) + _lengths(questions, ids))[:, None]
    return replace(batch, ids=ids, targets=targets, segments=real.long(), byte_lengths=torch.zeros_like(ids))


def _lengths(questions: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.tensor([len(asked) for asked in questions], device=like.device)
