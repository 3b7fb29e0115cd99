"""The kinds of steps and rows that training is made of, where they differ in what they cost."""

from dataclasses import replace

from remask.objectives.base import Objective
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.thought import ThoughtDiffusion


def courses(objective: Objective) -> list[tuple[float, Objective]]:
    """Objectives that do the same in every step and row, with weights whose sum is 1: the mean of training.

    A thought is looked at twice in a share of the steps, and the answers of a share of the rows are written behind it.
    What these add to a plain look is counted by itself, so that the plain one may have a weight below 0.
    """
    inner = unwrapped(objective)
    if not isinstance(inner, ThoughtDiffusion):
        return [(1.0, objective)]
    plain = replace(inner, answers=None, remembering=False)
    found: list[tuple[float, Objective]] = []
    if inner.memory:
        found.append((inner.memory, replace(plain, remembering=True)))
    if inner.answers is not None:
        found.append((inner.answers.share, replace(plain, answers=replace(inner.answers, share=1.0))))
    return [(1.0 - sum(share for share, _ in found), plain), *found]
