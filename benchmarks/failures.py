"""Six failures that text-diffusion projects have had, made again on a small scale, and what the monitor says.

Each failure is trained by remask's own loop under its own monitor, with the policies of the recipe; then the same
recipe is mended and trained again. Printed are the monitor's messages, and figures of both. The text is a licence of 11 kB,
read byte by byte, so that all of it takes a minute on one core.

Run: .venv/bin/python benchmarks/failures.py [--only NAME …] [--json]
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from remask.config.build import build_actions, build_curve, build_monitor, build_optimizers
from remask.config.load import load_recipe
from remask.data.batch import Batch
from remask.drawing import draw_samples
from remask.errors import RunError
from remask.evaluation.likelihood import likelihood_measurements, row_likelihoods
from remask.guard import Guarded
from remask.health.alarms import Alarm
from remask.materials import Materials, gather
from remask.monitor import Seen, alone
from remask.objectives.base import Loss, Objective
from remask.objectives.proofreading import Proofreading, mask_logit_bias
from remask.optimisation import MovingAverage
from remask.parallel import ALONE
from remask.samplers.base import blank_prompt
from remask.trainer import make_accelerator
from remask.training import Steered, Step, TrainingState, train
from remask.window import Window

CPU = torch.device("cpu")
LICENCE = Path(__file__).resolve().parents[1] / "LICENSE"
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


# ── 1. weights in float16 ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Wrapped:
    """An objective with something done to each call of it.

    Attributes:
        inner: the objective.
        call: (objective, network, batch, generator) → loss.
    """

    inner: Objective
    call: Callable[..., Loss]
    exact: bool = False

    def at(self, step: int) -> "Wrapped":
        """The inner one's."""
        return replace(self, inner=self.inner.at(step))

    def __call__(self, network: Any, batch: Batch, *, generator: torch.Generator) -> Loss:
        """What `call` makes of it."""
        return self.call(self.inner, network, batch, generator)

    def likelihood_terms(self, network: Any, batch: Batch, **options: Any) -> dict[str, Tensor]:
        """The inner one's."""
        return self.inner.likelihood_terms(network, batch, **options)


def in_float16(inner: Objective, network: Any, batch: Batch, generator: torch.Generator) -> Loss:
    """The forward pass in half precision."""
    with torch.autocast("cpu", torch.float16):
        return inner(network, batch, generator=generator)


def float16(folder: Path) -> Case:
    """AdamW keeps squared gradients in the weights' own precision, where those below 6e-8 are 0."""
    keys = ("training.steps=40", "training.optimizer=adamw", "training.learning_rate=1e-2", "training.warmup_ratio=0")
    half, single = (materials(folder, "mdlm", *keys, "training.batch_size=16") for _ in range(2))
    half.model.network.half()
    return Case(
        what="weights in float16, trained by AdamW without loss scaling",
        kinds=("non_finite",),
        failed=trained(half, objective=Wrapped(half.model.objective, in_float16)),
        mending="weights in float32, the same arithmetic in float16",
        mended=trained(single, objective=Wrapped(single.model.objective, in_float16)),
    )


# ── 2. a noise-prediction loss pinned at 1.0000 ────────────────────────────────────────────────────────────────


class Predictor(nn.Module):
    """Noisy vectors [B L D] and their noise level [B] to a guess at the noise, place by place.

    Args:
        width: D.
        zeroed: how many of the last layers begin at zero.
    """

    def __init__(self, width: int, *, zeroed: int) -> None:
        super().__init__()
        sizes = [(width + 1, 64), (64, 64), (64, width)]
        self.layers = nn.ModuleList(nn.Linear(before, after, bias=False) for before, after in sizes)
        generator = torch.Generator().manual_seed(1)
        for place, weight in enumerate(self.parameters()):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5, generator=generator)
            if place >= len(sizes) - zeroed:
                nn.init.zeros_(weight)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """The guess [B L D]."""
        x = torch.cat([z, t[:, None, None].expand(*z.shape[:2], 1)], -1)
        first, second, last = self.layers
        return last(second(functional.silu(first(x))))


@dataclass(frozen=True)
class NoisePrediction:
    """Mean squared error of the noise in z = √ā x + √(1 − ā) ε, ā = cos²(πt/2); guessing 0 costs 1.

    Attributes:
        table: a vector for each token [V D].
    """

    table: Tensor
    exact: bool = False

    def at(self, step: int) -> "NoisePrediction":
        """The same at each step."""
        del step
        return self

    def __call__(self, network: Any, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The error of each place."""
        x = self.table[batch.ids]
        t = torch.rand(len(x), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        angle = t[:, None, None] * math.pi / 2
        error = (network(angle.cos() * x + angle.sin() * noise, t) - noise).square().mean(-1)
        return Loss(error * batch.targets, batch.targets.float(), {"error": error.detach().sum()})

    def likelihood_terms(self, network: Any, batch: Batch, **options: Any) -> dict[str, Tensor]:
        """It has none."""
        raise NotImplementedError


def pinned(folder: Path) -> Case:
    """Each of two zero layers in series gets its gradient through the other one: it is 0 for ever."""
    given = materials(folder, "mdlm", "health.dead=report", "training.optimizer=adamw", "training.batch_size=64")
    table = torch.randn(given.text.tokenizer.vocab_size, 16, generator=torch.Generator().manual_seed(1))
    trials = [
        trained(
            given,
            objective=NoisePrediction(table),
            network=Predictor(16, zeroed=zeroed),
            trivial={"loss": {"guess of no noise": 1.0}},
        )
        for zeroed in (2, 1)
    ]
    return Case(
        what="the last two layers of a noise predictor start at zero",
        kinds=("dead", "trivial"),
        failed=trials[0],
        mending="the last layer alone starts at zero",
        mended=trials[1],
    )


# ── 3. a training step that fails in silence ───────────────────────────────────────────────────────────────────


def forgiving(inner: Objective, network: Any, batch: Batch, generator: torch.Generator) -> Loss:
    """As a loop that passes over bad batches: what fails costs nothing. Here all do, on the wrong device."""
    try:
        ids = batch.ids.to("meta")  # stands for a GPU that the weights are not on
        return inner(network, replace(batch, ids=ids), generator=generator)
    except RuntimeError:
        zero = torch.zeros(batch.ids.shape, requires_grad=True)
        return Loss(zero, batch.targets.float(), {"diffusion": torch.zeros(())})


def silent(folder: Path) -> Case:
    """The loss is 0.0000 from the first step on; held-out text stays where an untrained network has it."""
    failing, sound = (materials(folder, "mdlm", "health.dead=report") for _ in range(2))
    failed = trained(failing, objective=Wrapped(failing.model.objective, forgiving))
    mended = trained(sound)
    for trial, given in ((failed, failing), (mended, sound)):
        trial.figures["perplexity"] = math.exp(validation(given)["nats_per_token"])
        trial.figures["perplexity_of_uniform"] = math.exp(given.trivial["nats_per_token"]["uniform"])
    return Case(
        what="batch and weights on different devices, and a loop that catches the exception",
        kinds=("dead", "trivial"),
        failed=failed,
        mending="the exception is let through, the batch moved",
        mended=mended,
    )


# ── 4. a decoder that says one thing for ever ──────────────────────────────────────────────────────────────────


def draw(given: Materials, trial: Trial) -> None:
    """One sample as a run shows it, and the line of it that the monitor sees."""
    step, length = given.recipe.training.steps, given.recipe.data.length
    (record,) = draw_samples(
        given.model, given.recipe, blank_prompt(1, length, device=CPU), words=[None], run="-", step=step
    ).records
    trial.sample = record["text"]
    assert trial.guard is not None
    trial.guard.at_record({"kind": "sample", "step": step, "text": trial.sample})


def one_token(folder: Path) -> Case:
    """A network that knows frequencies alone, asked for its surest token at each place, gives the most frequent one."""
    trials = []
    for keys in (
        ("sampling.sampler=confidence", "sampling.temperature=0.01"),
        ("sampling.sampler=ancestral", "sampling.temperature=1"),
    ):
        given = materials(folder, "mdlm", "sampling.steps=32", *keys)
        trials.append(trained(given))
        draw(given, trials[-1])
    return Case(
        what="samples drawn at temperature 0.01, the surest token first",
        kinds=("collapse",),
        failed=trials[0],
        mending="sampling.sampler=ancestral sampling.temperature=1",
        mended=trials[1],
    )


# ── 5. AdaLN without bound ─────────────────────────────────────────────────────────────────────────────────────


def unbounded_scale(folder: Path) -> Case:
    """Shifts and scales that grow multiply from block to block, and the gradient with them."""
    keys = ("training.steps=60", "training.learning_rate=0.2", "training.clip=1e9", "training.warmup_ratio=0.2")
    keys += ("network.layers=4", "network.width=64", "data.length=64", "training.batch_size=16")
    keys += ("training.optimizer=adamw",)
    kinds = ("adaln_zero", "adaln_bounded")
    trials = [trained(materials(folder, "mdlm", *keys, f"network.time_conditioning={kind}")) for kind in kinds]
    return Case(
        what="network.time_conditioning=adaln_zero at a high learning rate, the gradient not clipped",
        kinds=("explosion",),
        failed=trials[0],
        mending="network.time_conditioning=adaln_bounded",
        mended=trials[1],
    )


# ── 6. the mask-logit gap ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class HardTargets(Proofreading):
    """Proofreading whose masked positions give [MASK] no mass at all: the logit of [MASK] can only fall there."""

    def unmask_nats(self, log_q: Tensor, log_q_x: Tensor, gate: Tensor, t: Tensor) -> Tensor:
        """The unmask task with τ = 0 in its target; the bias is steered to τ all the same."""
        tau = self.target_mask_prob
        soft = super().unmask_nats(log_q, log_q_x, gate, t)
        at_mask = functional.softplus(-gate) - (functional.softplus(gate) - log_q_x)
        weight = soft / ((1.0 - tau) * (functional.softplus(gate) - log_q_x) + tau * functional.softplus(-gate))
        return soft - tau * weight.detach() * at_mask


def mask_gap(folder: Path) -> Case:
    """The bias follows a logit that falls without end."""
    keys = ("training.steps=300", "network.layers=1", "network.width=32", "training.batch_size=16")
    keys += ("training.optimizer=adamw", "training.learning_rate=1e-2", "training.decay=constant")
    hard, soft = (materials(folder, "proofread", *keys) for _ in range(2))
    trials = [trained(hard, objective=HardTargets(**vars(hard.model.objective))), trained(soft)]
    for trial, run in zip(trials, (hard, soft), strict=True):
        trial.figures["mask_logit_bias"] = float(mask_logit_bias(run.model.network).detach())
    return Case(
        what="proofreading whose target gives [MASK] no mass at masked positions",
        kinds=("logit_gap",),
        failed=trials[0],
        mending="a target with the mass objective.target_mask_prob on [MASK]",
        mended=trials[1],
    )


CASES: Mapping[str, Callable[[Path], Case]] = {
    "float16": float16,
    "pinned": pinned,
    "silent": silent,
    "one_token": one_token,
    "unbounded_scale": unbounded_scale,
    "mask_gap": mask_gap,
}


def describe(name: str, case: Case) -> Iterator[str]:
    """A case in words."""
    yield f"{name}: {case.what}"
    yield f"  failed: {figures(case.failed)}"
    yield from (f"  says {alarm.kind}: {alarm}" for alarm in case.failed.alarms)
    yield f"  mended, {case.mending}: {figures(case.mended)}"
    yield from (f"  still says {alarm.kind}: {alarm}" for alarm in case.mended.alarms)
    yield f"  {'as it should be' if case.shown else 'NOT AS IT SHOULD BE'}"


def figures(trial: Trial) -> str:
    """A trial's figures in a line."""
    named = trial.to_json().items()
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v!r}" for k, v in named)


def as_json(name: str, case: Case) -> dict[str, Any]:
    """A case as one object."""
    told = {"messages": [str(alarm) for alarm in case.failed.alarms]}
    told |= {"messages_after_mending": [str(alarm) for alarm in case.mended.alarms]}
    both = {"failed": case.failed.to_json(), "mended": case.mended.to_json()}
    return {"failure": name, "what": case.what, "mending": case.mending, "shown": case.shown, **both, **told}


def main() -> None:
    """Prints each failure, what the monitor says, and the mended run; ends with code 1 where one is not shown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--json", action="store_true", help="one object a line")
    args = parser.parse_args()
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            case = CASES[name](Path(folder))
            shown.append(case.shown)
            print(json.dumps(as_json(name, case)) if args.json else "\n".join(describe(name, case)), flush=True)
    raise SystemExit(0 if all(shown) else 1)


if __name__ == "__main__":
    main()
