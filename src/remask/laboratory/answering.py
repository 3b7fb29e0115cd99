"""Denoising steps against time and right answers: the same questions answered with several numbers of steps."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median, stdev
from typing import Any

from remask.evaluation.measurement import Measurement
from remask.laboratory.steps import counted_calls, wait_for
from remask.reasoning_tasks.exams import Exam
from remask.reasoning_tasks.measuring import Examinee, measure
from remask.reasoning_tasks.responses import Response, Watch, Way, respond, token_counts
from remask.samplers.base import Prompt

Clock = Callable[[], float]


@dataclass
class Stopwatch:
    """A way of answering with a clock held against it.

    Attributes:
        way: how prompts are answered.
        model_done: called before the clock is read.
        clock: gives seconds; never goes back.
        seconds: of each batch so far.
    """

    way: Way
    model_done: Callable[[], None]
    clock: Clock
    seconds: list[float] = field(default_factory=list)

    def __call__(self, prompt: Prompt, seed: int) -> list[Response]:
        """The answers, and a note of how long they took."""
        self.model_done()
        began = self.clock()
        answers = self.way(prompt, seed)
        self.model_done()
        self.seconds.append(self.clock() - began)
        return answers


def answer_steps(
    examinee: Examinee,
    exam: Exam,
    *,
    device: str,
    repeats: int,
    watch: Callable[[str], Watch],
    clock: Clock = time.perf_counter,
) -> list[Measurement]:
    """One setting's cost and right answers, given in the model's usual way.

    `seconds_per_sample` is the time of answering all questions that leave a place for an answer, over their number;
    `seconds_alone` the median time of answering the first of them; `network_calls` counts what a batch of questions
    costs. Then the figures of `reasoning_tasks.measuring.measure`.

    Args:
        examinee: who is asked, with sampler and steps.
        exam: what.
        device: in words.
        repeats: times that one question is answered alone, after once that does not count.
        watch: as `measure` takes it.
        clock: gives seconds; never goes back.

    Raises:
        UserError: no question leaves a place for an answer.
    """
    name, way = next(iter(examinee.ways.items()))
    alone = Stopwatch(way, lambda: wait_for(examinee.model.device), clock)
    together = replace(alone, seconds=[])
    prompts, length, seed = examinee.prompts(exam), examinee.length, examinee.recipe.seed
    sizes = token_counts(examinee.model, prompts)
    able = [prompt for prompt, size in zip(prompts, sizes, strict=True) if size < length]
    first, asked = able[:1], len(able)
    with counted_calls(examinee.model.network) as calls:
        respond(examinee.model, first, way, length=length, seed=seed, watch=lambda done, of: None)
    for _ in range(repeats):
        respond(examinee.model, first, alone, length=length, seed=seed, watch=lambda done, of: None)
    figures = measure(replace(examinee, ways={name: together}), exam, trained_on=None, watch=watch)[name]
    protocol = {key: value for key, value in figures[0].protocol.items() if key != "questions_trained_on"}
    at_once = min(asked, examinee.recipe.evaluation.batch_size)

    def cost(name: str, value: float, *, unit: str, n: int, stderr: float | None = None, **more: object) -> Measurement:
        return Measurement(
            name=name, value=value, unit=unit, n=n, stderr=stderr, trivial={}, protocol=protocol | {**more}
        )

    error = stdev(alone.seconds) / math.sqrt(repeats) if repeats > 1 else None
    timed: Mapping[str, Any] = {"device": device}
    return [
        cost("seconds_per_sample", sum(together.seconds) / asked, unit="s", n=asked, samples_at_once=at_once, **timed),
        cost("seconds_alone", median(alone.seconds), unit="s", n=repeats, stderr=error, samples_at_once=1, **timed),
        cost("network_calls", float(calls.count), unit="calls", n=1),
        *figures,
    ]
