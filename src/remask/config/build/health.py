"""The watch over a training, from a recipe: what is looked for, and what is done about it."""

from collections.abc import Mapping
from typing import get_args

from torch import nn

from remask import guard
from remask.config import schema
from remask.guard import Action
from remask.health.alarms import Kind
from remask.monitor import Gather, Monitor


def build_actions(spec: schema.HealthSpec) -> Mapping[str, Action]:
    """What is done at each kind of alarm."""
    named = {"report": guard.report, "stop": guard.stop, "skip": guard.skip, "roll_back": guard.roll_back}
    return {kind: named[getattr(spec, kind)] for kind in get_args(Kind)}


def build_monitor(
    recipe: schema.Recipe,
    network: nn.Module,
    *,
    trivial: Mapping[str, Mapping[str, float]],
    held_out: str,
    gather: Gather,
) -> Monitor:
    """The monitor of a recipe's run.

    Args:
        recipe: the experiment.
        network: unwrapped.
        trivial: figure → trivial predictor → value.
        held_out: some held-out text as long as a sample.
        gather: a value of each process → all of them.
    """
    targets, settled = _targets(recipe)
    return Monitor(
        network,
        trivial=trivial,
        explosion_factor=recipe.health.explosion_factor,
        steps=recipe.training.steps,
        targets=targets,
        settled=settled,
        held_out=held_out,
        inversion_tolerance=recipe.health.inversion_tolerance,
        gather=gather,
    )


def _targets(recipe: schema.Recipe) -> tuple[Mapping[str, float], int]:
    """Figures that an objective steers to a value, and the step at which its warm-ups end."""
    match recipe.objective:
        case schema.ProofreadingSpec() as spec:
            warmup = max(spec.masking_warmup_ratio, spec.proofreading_warmup_ratio)
            return {"mask_probability": spec.target_mask_prob}, round(warmup * recipe.training.steps)
        case _:
            return {}, 0
