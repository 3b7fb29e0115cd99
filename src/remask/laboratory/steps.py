"""Denoising steps against time and quality: the same model drawn from with several numbers of steps and samplers.

Shape letters: n samples, L tokens of a sample.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, stdev
from typing import Any

import torch
from torch import nn

from remask.config.build import build_sampler, valid_samplers
from remask.config.schema import Recipe
from remask.drawing import sampling_protocol
from remask.errors import UserError, did_you_mean
from remask.evaluation.measurement import Measurement
from remask.generation import generate
from remask.judgement import Yardstick
from remask.model import Model
from remask.samplers.base import Prompt

REPEATS = 3
"""Times that a draw is timed, after one that is not."""
OWN_STEPS = ("entropy_bounded", "left_to_right")
"""Samplers that take as many steps as the text needs, whatever they are told."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """How long draws of one setting took.

    Attributes:
        alone: seconds of each draw of one sample.
        together: seconds of each draw of all samples, `evaluation.batch_size` at once.
        calls: of the network, for one batch.
        ids: the samples [n L].
    """

    alone: tuple[float, ...]
    together: tuple[float, ...]
    calls: int
    ids: Any


@dataclass
class Calls:
    """Calls of a network so far."""

    count: int = 0
    _depth: int = field(default=0, repr=False)


def check_settings(model: Model, recipe: Recipe, *, samplers: Sequence[str]) -> None:
    """Looks whether steps can be varied at all.

    Args:
        model: to draw from.
        recipe: its run's.
        samplers: asked for.

    Raises:
        UserError: the model is autoregressive, or a sampler does not fit it or counts its own steps.
    """
    if model.process is None:
        raise UserError(
            f"recipe {recipe.name} is autoregressive: it draws one token a step, and has no steps to vary. Give a "
            "diffusion model's run"
        )
    valid = [name for name in valid_samplers(model) if name not in OWN_STEPS]
    for name in samplers:
        if name in OWN_STEPS:
            raise UserError(f"sampler {name} takes as many steps as the text needs, so there are none to vary")
        if name not in valid:
            raise UserError(f"sampler {name} does not fit this model: {did_you_mean(name, valid)}")


def step_measurements(
    model: Model,
    recipe: Recipe,
    *,
    bench: Yardstick,
    device: str,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measurement]:
    """One setting's cost and quality.

    `seconds_per_sample` is the median time of drawing all samples, over their number; `seconds_alone` that of drawing
    one; `network_calls` counts what a batch of samples costs. Then every figure of the bench.

    Args:
        model: to draw from.
        recipe: sampler, steps, count, length and seed.
        bench: judges the samples, and knows what stands beside them.
        device: in words.
        repeats: draws that are timed, at least 1.
        clock: gives seconds; never goes back.
    """
    timed = timed_draws(model, recipe, bench.prompt, repeats=repeats, clock=clock)
    protocol = sampling_protocol(recipe, length=bench.length)
    n = len(timed.ids)
    per_sample = [seconds / n for seconds in timed.together]
    costs = [
        _cost(
            "seconds_per_sample",
            per_sample,
            protocol | {"samples_at_once": min(n, recipe.evaluation.batch_size), "device": device},
        ),
        _cost("seconds_alone", timed.alone, protocol | {"samples_at_once": 1, "device": device}),
        Measurement(
            name="network_calls",
            value=float(timed.calls),
            unit="calls",
            n=1,
            stderr=None,
            trivial={},
            protocol=protocol,
        ),
    ]
    quality = {figure.name: figure for figure in bench.all(timed.ids, recipe)}  # the judge gives entropy once more
    return [*costs, *quality.values()]


def timed_draws(
    model: Model, recipe: Recipe, prompt: Prompt, *, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> Timed:
    """Draws the same samples several times, with the clock held against them, after one draw to warm up."""
    sampler = build_sampler(recipe.sampling, model, seed=recipe.seed)
    first = Prompt(ids=prompt.ids[:1], fixed=prompt.fixed[:1])

    def draw(given: Prompt) -> tuple[float, Any]:
        wait_for(model.device)
        began = clock()
        ids = generate(model, sampler, given, seed=recipe.seed, at_once=recipe.evaluation.batch_size)
        wait_for(model.device)
        return clock() - began, ids

    with counted_calls(model.network) as calls:
        draw(first)
    alone = tuple(draw(first)[0] for _ in range(repeats))
    drawn = [draw(prompt) for _ in range(repeats)]
    return Timed(
        alone=alone,
        together=tuple(seconds for seconds, _ in drawn),
        calls=calls.count,
        ids=drawn[-1][1].cpu().numpy(),
    )


@contextmanager
def counted_calls(network: nn.Module) -> Iterator[Calls]:
    """Counts how often a network is asked, by a plain call, by reading on from a cache, or in its two parts."""
    calls = Calls()
    names = [name for name in ("forward", "resume", "encode", "decode") if hasattr(network, name)]

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            calls.count += calls._depth == 0  # one may be made of the other
            calls._depth += 1
            try:
                return function(*arguments, **named)
            finally:
                calls._depth -= 1

        return call

    for name in names:
        network.__dict__[name] = counting(getattr(network, name))
    try:
        yield calls
    finally:
        for name in names:
            del network.__dict__[name]


def _cost(name: str, seconds: Sequence[float], protocol: dict[str, Any]) -> Measurement:
    n = len(seconds)
    return Measurement(
        name=name,
        value=median(seconds),
        unit="s",
        n=n,
        stderr=stdev(seconds) / math.sqrt(n) if n > 1 else None,
        trivial={},
        protocol=protocol | {"repeats": n},
    )


def wait_for(device: torch.device) -> None:
    """Waits for a GPU, which works on after a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
