"""One run in progress: trains, judges, samples, logs and keeps checkpoints.

What it writes is either a whole line of a log or a whole file that takes the place of another, so a run can be killed
at any moment and resumed.
"""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from remask.checkpoints import Checkpoints
from remask.config.build import build_curve, build_optimizers
from remask.config.saved import save_model
from remask.data.packing import training_batches
from remask.drawing import Drawing, draw_samples, own_prompts
from remask.errors import RunError
from remask.evaluation.likelihood import likelihood_measurements, row_likelihoods
from remask.health import verdict
from remask.interruption import InterruptRequest
from remask.machine import peak_memory_bytes
from remask.materials import Materials
from remask.objectives.prompt_dropout import unwrapped
from remask.optimisation import MovingAverage
from remask.runs import Registry, RunFolder, RunRecord, timestamp, write_atomic
from remask.training import Steered, Step, TrainingState, train

VALIDATION_DRAWS = 2
"""Noise draws a row of the validations during training; `remask evaluate` takes the recipe's own number."""

LIKELIHOOD_TERMS = ("diffusion", "next_token")
"""Terms of a training loss that estimate the likelihood; a partial loss (a curriculum) has none, and is none."""


@runtime_checkable
class Watcher(Protocol):
    """Sees a run as it goes on, to show it."""

    def tokenizing(self, done: int) -> None:
        """So many bytes of text have been tokenized."""
        ...

    def prepared(self, run: "Run") -> None:
        """Text and model are ready and the folder exists; training is about to begin."""
        ...

    def logged(self, record: Mapping[str, Any]) -> None:
        """A training, validation or sample record was written to metrics.jsonl."""
        ...

    def said(self, message: str) -> None:
        """Something worth a line."""
        ...


@dataclass
class Window:
    """Training figures since the last logged line; kept in checkpoints, so that a resumed line averages the same steps.

    Attributes:
        losses: of each step, nats a token.
        likelihoods: of each step whose loss estimates one, nats a token.
        norms: of each step's gradient.
        terms: of the loss, summed over the steps, nats a token.
        tokens: trained on since the line, or since the run was resumed.
        since: when that was, by a monotonic clock, in seconds.
    """

    losses: list[float] = field(default_factory=list)
    likelihoods: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    terms: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, step: Step) -> None:
        """Takes a step in."""
        self.losses.append(step.loss)
        self.likelihoods += [step.terms[name] for name in LIKELIHOOD_TERMS if name in step.terms]
        self.norms.append(step.gradient_norm)
        for name, value in step.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value
        self.tokens += step.tokens

    def figures(self, *, now: float, bytes_per_token: float) -> dict[str, float]:
        """Mean loss and gradient norm, tokens a second, and bits a byte where every step estimated the likelihood."""
        count = len(self.losses)
        figures = {
            "loss": sum(self.losses) / count,
            "gradient_norm": sum(self.norms) / count,
            "tokens_per_second": self.tokens / max(now - self.since, 1e-9),
        }
        if len(self.likelihoods) == count:
            figures["bits_per_byte"] = sum(self.likelihoods) / count / math.log(2) / bytes_per_token
        return figures

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"losses": self.losses, "likelihoods": self.likelihoods, "norms": self.norms, "terms": self.terms}


class Run:
    """A run in progress.

    Args:
        materials: text, model and trivial figures.
        folder: locked by this process.
        registry: keeps the record.
        watch: is told what happens.
        record: the run's record so far.
    """

    def __init__(
        self,
        *,
        materials: Materials,
        folder: RunFolder,
        registry: Registry,
        watch: Watcher,
        record: RunRecord,
    ) -> None:
        self.materials, self.folder, self.registry, self.watch = materials, folder, registry, watch
        self.record = record
        recipe, model = materials.recipe, materials.model
        self.recipe, self.model = recipe, model
        if model.device.type == "cuda":
            torch.cuda.set_device(model.device)  # Accelerate takes the current one, whichever the recipe named
        AcceleratorState._reset_state(reset_partial_state=True)  # it keeps an earlier run's precision and device
        self.accelerator = Accelerator(
            cpu=model.device.type == "cpu",
            mixed_precision={"float32": "no", "bf16": "bf16", "fp16": "fp16"}[recipe.training.precision],
        )
        optimizers = build_optimizers(recipe.training, model.network)
        network, *prepared = self.accelerator.prepare(model.network, *optimizers)
        average = MovingAverage(model.network, decay=recipe.training.ema_decay)
        self.state = TrainingState(network, prepared, average)
        self.checkpoints = Checkpoints(folder.checkpoints_path, keep=recipe.training.keep_checkpoints)
        self.window = Window()
        self.seconds_before = 0.0
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent in training, over all parts of a resumed run."""
        return self.seconds_before + time.monotonic() - self.began

    def restore(self) -> None:
        """Takes up the newest whole checkpoint, and drops what was logged after it."""
        if self.checkpoints.list():
            extra = self.checkpoints.load_newest(self.state)
            for name in extra["damaged"]:
                self.watch.said(f"passed over a damaged checkpoint: {name}")
            self.seconds_before = float(extra["seconds"])
            self.window = Window(**extra["window"])
            if self.accelerator.scaler is not None and extra["scaler"]:
                self.accelerator.scaler.load_state_dict(extra["scaler"])
        self.folder.trim_metrics(self.state.step)
        self.folder.trim_samples(self.state.step)
        if not any(line["kind"] == "trivial" for line in self.folder.metrics()):
            self.folder.append_metrics({"kind": "trivial", "step": 0, **self.materials.trivial})
        checkpoint = f"{self.record.id}/checkpoints/step-{self.state.step}"
        lineage = [*self.record.lineage, checkpoint] if self.state.step else list(self.record.lineage)
        self.record = self.registry.update(
            self.record.id, status="running", finished=None, error=None, lineage=lineage, step=self.state.step
        )
        self.watch.said(f"resuming {self.record.id} at step {self.state.step} of {self.recipe.training.steps}")

    def drive(self) -> RunRecord:
        """Trains to the end, and leaves a record that says how it ended, whatever happens."""
        self.began = time.monotonic()
        self.watch.prepared(self)
        try:
            with InterruptRequest() as interrupt:
                self._loop(interrupt)
            return self._finish()
        except KeyboardInterrupt:
            self._close("interrupted", error="stopped by the user")
            self.watch.said(f"stopped at step {self.state.step}. To go on: remask train --resume {self.record.id}")
            raise
        except Exception as error:
            with suppress(RunError):  # on a full disk the record cannot be written either; the first failure counts
                self._close("failed", error=str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise
        finally:
            self.folder.close()

    def _loop(self, interrupt: InterruptRequest) -> None:
        spec = self.recipe.training
        batches = training_batches(
            self.materials.rows,
            batch_size=spec.batch_size,
            micro_batch_size=spec.micro_batch_size,
            seed=self.recipe.seed,
            start_step=self.state.step,
        )
        steps = train(
            self.state,
            objective=self.model.objective,
            batches=batches,
            accelerator=self.accelerator,
            curve=build_curve(spec),
            clip=spec.clip,
            seed=self.recipe.seed,
            steps=spec.steps,
        )
        for step in steps:
            self.window.add(step)
            last = step.index == spec.steps
            if step.index % spec.log_every == 0 or last:
                self._log(step)
            if step.index % spec.evaluate_every == 0 or last:
                self._validate()
            if step.index % spec.sample_every == 0 or last:
                self._show_sample()
            if step.index % spec.checkpoint_every == 0 or last or interrupt.requested:
                self._checkpoint()
            if interrupt.requested and not last:
                raise KeyboardInterrupt

    def _emit(self, record: Mapping[str, Any]) -> None:
        self.folder.append_metrics(record)
        self.watch.logged(record)

    def _log(self, step: Step) -> None:
        figures = self.window.figures(now=time.monotonic(), bytes_per_token=self.materials.rows.bytes_per_target)
        objective = unwrapped(self.model.objective)
        if isinstance(objective, Steered):
            figures |= objective.diagnostics(self.model.network, self.window.terms)
        self._emit(
            {
                "kind": "train",
                "step": step.index,
                **figures,
                "learning_rate": step.learning_rate * self.recipe.training.learning_rate,
                "tokens": self.state.tokens,
                "seconds": self.seconds,
            }
        )
        self.window = Window()

    def _validate(self) -> None:
        with self.state.average.applied(self.model.network):
            sums = row_likelihoods(
                self.model,
                self.materials.held_out,
                draws=VALIDATION_DRAWS,
                seed=self.recipe.seed,
                end_share=self.materials.end_share,
            )
        figures = {m.name: m for m in likelihood_measurements(sums, trivial_nats={}, protocol={})}
        bits = figures["bits_per_byte"]
        self._emit(
            {
                "kind": "validation",
                "step": self.state.step,
                "nats_per_token": figures["nats_per_token"].value,
                "bits_per_byte": bits.value,
                "stderr": bits.stderr,
                "rows": bits.n,
                "seconds": self.seconds,
            }
        )
        self.record = self.registry.update(
            self.record.id,
            step=self.state.step,
            headline={"bits_per_byte": bits.value, "nats_per_token": figures["nats_per_token"].value},
        )

    def _show_sample(self) -> None:
        (sample,) = self._draw(count=1).records
        self._emit({"kind": "sample", "step": self.state.step, "text": sample["text"]})

    def _draw(self, *, count: int) -> Drawing:
        """Samples of the averaged weights, from nothing or from prompts of held-out pairs."""
        store = self.materials.text.stores["validation"]
        prompt, words = own_prompts(self.model, self.recipe, store, count=count)
        with self.state.average.applied(self.model.network):
            return draw_samples(self.model, self.recipe, prompt, words=words, run=self.record.id, step=self.state.step)

    def _checkpoint(self) -> None:
        scaler = self.accelerator.scaler
        extra = {
            "seconds": self.seconds,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "window": self.window.to_json(),
        }
        self.checkpoints.save(self.state, extra=extra)
        self.record = self.registry.update(self.record.id, step=self.state.step, **self._cost())

    def _cost(self) -> dict[str, Any]:
        seconds = max(self.seconds, 1e-9)
        return {
            "tokens_seen": self.state.tokens,
            "steps_per_second": self.state.step / seconds,
            "tokens_per_second": self.state.tokens / seconds,
            "peak_memory_bytes": peak_memory_bytes(self.model.device),
        }

    def _finish(self) -> RunRecord:
        with self.state.average.applied(self.model.network):
            save_model(self.model, self.recipe, self.folder.model_path)
        drawn = self._draw(count=self.recipe.sampling.count)
        write_atomic(self.folder.trajectory_path, json.dumps(drawn.course, ensure_ascii=False))
        self.folder.trim_samples(self.state.step - 1)  # those of an earlier end that was cut short
        for line in drawn.records:
            self.folder.append_sample(line)
        return self._close("finished", error=None)

    def _close(self, status: str, *, error: str | None) -> RunRecord:
        judged = verdict(self.folder.metrics())
        self.record = self.registry.update(
            self.record.id,
            status=status,
            error=error,
            finished=timestamp(),
            step=self.state.step,
            verdict=judged.sentence,
            **self._cost(),
        )
        return self.record
