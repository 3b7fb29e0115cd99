"""A training of remask's own, under its own monitor, without a run's files; and a failure beside its mending."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from remask.config.build import build_actions, build_curve, build_monitor, build_optimizers
from remask.config.load import load_recipe
from remask.drawing import draw_samples
from remask.errors import RunError
from remask.evaluation.likelihood import likelihood_measurements, row_likelihoods
from remask.guard import Guarded
from remask.health.alarms import Alarm
from remask.materials import Materials, gather
from remask.monitor import Seen, alone
from remask.objectives.base import Objective
from remask.optimisation import MovingAverage
from remask.parallel import ALONE
from remask.samplers.base import blank_prompt
from remask.trainer import make_accelerator
from remask.training import Steered, Step, TrainingState, train
from remask.window import Window

CPU = torch.device("cpu")
LICENCE = Path(__file__).resolve().parents[2] / "LICENSE"
SMALL = (
    *("tokenizer.kind=byte", "data.length=32", "network.width=48", "network.layers=2", "network.heads=2"),
    *("training.batch_size=32", "training.steps=120", "training.evaluate_rows=32", "training.ema_decay=0"),
)


@dataclass
class Trial:
    """One training, as far as it came.

    Attributes:
        losses: of each step.
        norms: of each step's gradient.
        alarms: those that were new, in order.
        figures: what else is worth a word.
        sample: a text drawn from the model, where it matters.
        guard: what watched.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    sample: str | None = None
    guard: Guarded | None = None

    def to_json(self) -> dict[str, Any]:
        """Steps, the mean loss of the last tenth of them, the longest gradient, and the other figures."""
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return {
            "steps": len(self.losses),
            "first_loss": self.losses[0],
            "last_loss": sum(last) / len(last),
            "longest_gradient": max(self.norms),
            **self.figures,
            **({} if self.sample is None else {"sample": self.sample}),
        }


@dataclass(frozen=True, kw_only=True)
class Case:
    """A failure, and the same recipe mended.

    Attributes:
        what: what was done wrong.
        kinds: kinds of alarm that must come.
        failed: how it went.
        mending: what was changed.
        mended: how it went then.
    """

    what: str
    kinds: tuple[str, ...]
    failed: Trial
    mending: str
    mended: Trial

    @property
    def shown(self) -> bool:
        """Whether the monitor said what it should have, and nothing after the mending."""
        return set(self.kinds) <= {alarm.kind for alarm in self.failed.alarms} and not self.mended.alarms


@dataclass(frozen=True)
class Noting:
    """A guard that notes loss and norm of every step, also of the one at which it stops."""

    guard: Guarded
    trial: Trial

    def before_update(self, seen: Seen) -> bool:
        """Notes, then asks."""
        self.trial.losses.append(seen.loss)
        self.trial.norms.append(seen.gradient_norm)
        return self.guard.before_update(seen)

    def after_update(self, step: int) -> None:
        """Asks."""
        self.guard.after_update(step)


def materials(folder: Path, name: str, *overrides: str) -> Materials:
    """What a recipe of that name needs, on the small text and made small."""
    text = folder / "licence.txt"
    if not text.exists():
        text.write_bytes(LICENCE.read_bytes())
    recipe = load_recipe(name, [f"data.source={text}", *SMALL, *overrides])
    return gather(recipe, cache=folder / "cache", device=CPU)


def trained(
    given: Materials,
    *,
    objective: Objective | None = None,
    network: nn.Module | None = None,
    trivial: Mapping[str, Mapping[str, float]] | None = None,
) -> Trial:
    """Trains as a run does, without its files: the loop, the monitor, the policies, the training lines.

    Args:
        given: recipe, model and text.
        objective: instead of the recipe's.
        network: instead of the recipe's.
        trivial: trivial values instead of the text's: figure → predictor → value.
    """
    recipe, spec = given.recipe, given.recipe.training
    objective, network = objective or given.model.objective, network or given.model.network
    trial = Trial()
    known = given.trivial if trivial is None else trivial
    monitor = build_monitor(recipe, network, trivial=known, held_out=given.held_out_text, gather=alone)
    guard = trial.guard = Guarded(monitor, build_actions(recipe.health), tell=trial.alarms.append)
    accelerator = make_accelerator(CPU, precision=spec.precision)
    optimizers = [accelerator.prepare(optimizer) for optimizer in build_optimizers(spec, network)]
    steps = train(
        TrainingState(accelerator.prepare(network), optimizers, MovingAverage(network, decay=0.0)),
        objective=objective,
        batches=given.feed.open(start_step=0, process=0, processes=1),
        accelerator=accelerator,
        curve=build_curve(spec),
        clip=spec.clip,
        seed=recipe.seed,
        steps=spec.steps,
        world=ALONE,
        guard=Noting(guard, trial),
    )
    with suppress(RunError):  # a policy said stop
        for line in lines(given, objective, steps):
            guard.at_record(line)
        if trivial is None:
            guard.at_record(validation(given))
    return trial


def lines(given: Materials, objective: Objective, steps: Iterator[Step]) -> Iterator[dict[str, Any]]:
    """The training lines of metrics.jsonl."""
    window = Window()
    for step in steps:
        window.add(step)
        if step.index % given.recipe.training.log_every == 0:
            figures = window.figures(now=0.0, bytes_per_token=given.feed.bytes_per_target)
            if isinstance(objective, Steered):
                figures |= objective.diagnostics(given.model.network, window.terms)
            yield {"kind": "train", "step": step.index, **figures}
            window = Window()


def validation(given: Materials) -> dict[str, Any]:
    """The validation line at the recipe's end."""
    sums = row_likelihoods(given.model, given.held_out, draws=8, seed=1, end_share=given.end_share)
    figures = {m.name: m for m in likelihood_measurements(sums, trivial_nats={}, protocol={})}
    bits = figures["bits_per_byte"]
    nats = figures["nats_per_token"].value
    step = given.recipe.training.steps
    return {
        "kind": "validation",
        "step": step,
        "nats_per_token": nats,
        "bits_per_byte": bits.value,
        "stderr": bits.stderr,
    }


def drawn(given: Materials, trial: Trial, sampler: str, *, temperature: float) -> Trial:
    """The trial, and one sample of its model drawn and looked at as a run does it."""
    changed = given.recipe.sampling.model_copy(update={"sampler": sampler, "temperature": temperature})
    recipe = given.recipe.model_copy(update={"sampling": changed})
    step, prompt = recipe.training.steps, blank_prompt(1, recipe.data.length, device=CPU)
    (record,) = draw_samples(given.model, recipe, prompt, words=[None], run="-", step=step).records
    assert trial.guard is not None
    found = trial.guard.monitor.at_record({"kind": "sample", "step": step, "text": record["text"]})
    return replace(trial, alarms=[*trial.alarms, *found], sample=record["text"])
