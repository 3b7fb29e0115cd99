"""One run in progress: trains, judges, samples, logs and keeps checkpoints.

What it writes is either a whole line of a log or a whole file that takes the place of another, so a run can be killed
at any moment and resumed. Of several processes each does the same work in the same order on its own rows; one of them
has the book and writes.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from remask.book import Book
from remask.checkpoints import Checkpoints
from remask.config.build import build_actions, build_curve, build_monitor, build_optimizers
from remask.config.saved import save_model
from remask.drawing import Drawing, draw_samples, own_prompts
from remask.errors import RunError
from remask.evaluation.assessment import assessed, assessment_measurement, draws_text, rebuilt_text, row_assessments
from remask.evaluation.concept_gaps import concept_figures
from remask.evaluation.likelihood import likelihood_measurements, row_likelihoods
from remask.evaluation.measurement import Measurement
from remask.guard import Guarded, RollBack
from remask.health import verdict
from remask.health.alarms import Alarm
from remask.interruption import InterruptRequest
from remask.machine import peak_memory_bytes
from remask.materials import Materials
from remask.networks.reversible import inversion_error
from remask.objectives.base import Assessed
from remask.objectives.prompt_dropout import unwrapped
from remask.optimisation import MovingAverage
from remask.parallel import World, company
from remask.runs import RunFolder, RunRecord, collect_provenance, timestamp
from remask.runs.lineage import resumed
from remask.sharding import Layered, shard
from remask.training import Step, Telling, TrainingState, drop_gradient, load_figures, train
from remask.window import Window

RECONSTRUCTION = "reconstruction of a held-out row"
"""What a sample is of a model that draws none: a row that it was told of, written again greedily."""

VALIDATION_DRAWS = 2
"""Noise draws a row of the validations during training; `remask evaluate` takes the recipe's own number."""


@runtime_checkable
class Watcher(Protocol):
    """Sees a run as it goes on, to show it."""

    def learning(self, done: int, total: int | None) -> None:
        """So many bytes of text have been looked through, or learned from, to learn a vocabulary."""
        ...

    def tokenizing(self, done: int, total: int | None) -> None:
        """So many bytes of text have been tokenized, of so many, about (None: not known)."""
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


class Unwatched:
    """Nobody looks: of several processes all but one."""

    def learning(self, done: int, total: int | None) -> None:
        """Nobody to tell."""

    def tokenizing(self, done: int, total: int | None) -> None:
        """Nobody to tell."""

    def prepared(self, run: "Run") -> None:
        """Nobody to tell."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """Nobody to tell."""

    def said(self, message: str) -> None:
        """Nobody to tell."""


class Run:
    """A run in progress, as one of `world.size` processes sees it.

    Args:
        materials: text, model and trivial figures.
        folder: where checkpoints and the model go; the same for all processes.
        book: keeps the record.
        world: the processes that train together.
    """

    def __init__(self, *, materials: Materials, folder: RunFolder, book: Book, world: World) -> None:
        self.materials, self.folder, self.book, self.world = materials, folder, book, world
        recipe, model = materials.recipe, materials.model
        self.recipe, self.model = recipe, model
        self.accelerator = make_accelerator(materials.device, precision=recipe.training.precision)
        self.state = self._prepare()
        self.checkpoints = Checkpoints(folder.checkpoints_path, keep=recipe.training.keep_checkpoints)
        self.guard = Guarded(
            build_monitor(
                recipe,
                model.network,
                trivial=materials.trivial,
                held_out=materials.held_out_text,
                gather=world.gather,
            ),
            build_actions(recipe.health),
            tell=self._alarm,
        )
        self.window = Window()
        self.rate, self.retries = 1.0, 0
        self.reading: Mapping[str, Any] | None = None
        self.seconds_before = 0.0
        self.began, self.ended = time.monotonic(), 0.0

    def _prepare(self) -> TrainingState:
        """Network and optimisers as this process holds them: whole, a copy among others, or a share of the weights."""
        spec, network = self.recipe.training, self.model.network
        if spec.parallel == "fsdp" and self.world.size > 1:
            assert isinstance(network, Layered)
            shard(network, layers=network.repeated_layers(), world=self.world, device=self.materials.device)
            wrapped = self.accelerator.prepare_model(network, evaluation_mode=True)
        else:
            wrapped = self.accelerator.prepare(network)
        optimizers = [self.accelerator.prepare(optimizer) for optimizer in build_optimizers(spec, network)]
        return TrainingState(wrapped, optimizers, MovingAverage(network, decay=spec.ema_decay))

    @property
    def record(self) -> RunRecord:
        """The run's record so far."""
        return self.book.record

    @property
    def seconds(self) -> float:
        """Time spent in training with its validations and checkpoints, over all parts of a resumed run."""
        return self.seconds_before + (self.ended or time.monotonic()) - self.began

    def restore(self) -> None:
        """Takes up the newest whole checkpoint, and drops what was logged after it."""
        if self.world.any(bool(self.checkpoints.list())):
            self._load()
        self.book.open(step=self.state.step, trivial=self.materials.trivial)
        lineage = list(self.book.record.lineage)
        if self.state.step:
            here = collect_provenance().record_fields()
            lineage.append(resumed(self.book.record.id, step=self.state.step, recorded=self.book.record, here=here))
        self.book.note(status="running", finished=None, error=None, lineage=lineage, step=self.state.step)
        self.book.say(f"resuming {self.book.record.id} at step {self.state.step} of {self.recipe.training.steps}")

    def _load(self) -> None:
        extra = self.checkpoints.load_newest(self.state, world=self.world)
        for name in extra["damaged"]:
            self.book.say(f"passed over a damaged checkpoint: {name}")
        self.seconds_before, self.began = float(extra["seconds"]), time.monotonic()
        self.window = Window(**extra["window"])
        # checkpoints of before these were kept have none of them, and need none
        self.rate, self.retries = float(extra.get("rate", 1.0)), int(extra.get("retries", 0))
        self.reading = extra.get("reading")
        if "monitor" in extra:
            self.guard.monitor.restore(extra["monitor"])
        if self.accelerator.scaler is not None and extra["scaler"]:
            self.accelerator.scaler.load_state_dict(extra["scaler"])

    def drive(self, watch: Watcher) -> RunRecord:
        """Trains to the end, and leaves a record that says how it ended, whatever happens."""
        self.began = time.monotonic()
        watch.prepared(self)
        status = "failed"
        try:
            with InterruptRequest() as interrupt:
                if self.recipe.health.may_roll_back and not self.state.step:
                    self._checkpoint(self.reading)
                while not self._reaches_the_end(interrupt):
                    pass
            self.ended = time.monotonic()  # what is drawn of the finished model is no training
            self._finish()
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            self._end(status, error="stopped by the user")
            self.book.say(f"stopped at step {self.state.step}. To go on: remask train --resume {self.book.record.id}")
            raise
        except Exception as error:
            with suppress(RunError):  # on a full disk the record cannot be written either; the first failure counts
                self._end(status, error=str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise
        finally:
            self.book.close(status)
        return self.record

    def _reaches_the_end(self, interrupt: InterruptRequest) -> bool:
        """Trains on; false where the run went back to a checkpoint instead."""
        try:
            with company():
                self._loop(interrupt)
        except RollBack as asked:
            self._roll_back(asked.alarm)
            return False
        return True

    def _loop(self, interrupt: InterruptRequest) -> None:
        spec, curve = self.recipe.training, build_curve(self.recipe.training)
        rate = self.rate
        reading = self.materials.feed.open(
            start_step=self.state.step, process=self.world.rank, processes=self.world.size, state=self.reading
        )
        steps = train(
            self.state,
            objective=self.model.objective,
            batches=reading,
            accelerator=self.accelerator,
            curve=lambda step: rate * curve(step),
            clip=spec.clip,
            seed=self.recipe.seed,
            steps=spec.steps,
            world=self.world,
            guard=self.guard,
        )
        try:
            for step in steps:
                self.window.add(step, inversion_error=inversion_error(self.model.network))
                last = step.index == spec.steps
                if step.index % spec.log_every == 0 or last:
                    self._log(step)
                if step.index % spec.evaluate_every == 0 or last:
                    self._validate()
                if step.index % spec.sample_every == 0 or last:
                    self._show_sample()
                requested = self.world.any(interrupt.requested)
                if step.index % spec.checkpoint_every == 0 or last or requested:
                    self._checkpoint(reading.state())
                if requested and not last:
                    raise KeyboardInterrupt
        finally:
            reading.close()

    def _roll_back(self, alarm: Alarm) -> None:
        """Goes back to the newest checkpoint, at a lower rate that is kept with it, unless it was tried too often."""
        spec = self.recipe.health
        rate, retries = self.rate * spec.rate_factor, self.retries + 1
        if retries > spec.retries:
            back = "once" if spec.retries == 1 else f"{spec.retries} times"
            raise RunError(
                f"{alarm}. The run went back {back} (health.retries), the last time to {self.rate:g} of "
                "its learning rate. The last checkpoint is untouched"
            )
        drop_gradient(self.state.optimizers, self.accelerator)  # of the step that was not made
        self._load()
        self.rate, self.retries = rate, retries
        self.book.open(step=self.state.step, trivial=self.materials.trivial)
        back = {"step": self.state.step, "failed_step": alarm.step, "action": "roll_back", "rate": rate}
        self._checkpoint(self.reading)
        self._emit({**alarm.to_json(), **back})
        self.book.say(f"back to step {self.state.step}, at {rate:g} of the learning rate (health.rate_factor)")

    def _alarm(self, alarm: Alarm) -> None:
        action = getattr(self.recipe.health, alarm.kind)
        if action == "roll_back" and self.retries >= self.recipe.health.retries:
            action = "stop"  # what it comes to
        self.book.emit({**alarm.to_json(), "action": action})

    def _emit(self, record: Mapping[str, Any]) -> None:
        self.book.emit(record)
        self.guard.at_record(record)

    def _log(self, step: Step) -> None:
        figures = self.window.figures(now=time.monotonic(), bytes_per_token=self.materials.feed.bytes_per_target)
        objective = unwrapped(self.model.objective)
        if isinstance(objective, Telling) and self.window.terms:
            figures |= objective.diagnostics(self.model.network, self.window.terms)
        figures |= load_figures(self.model.network) | self.window.inversion_figures(self.world.gather)
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
        objective = assessed(self.model.objective)
        figures = self._likelihood() if objective is None else self._own_figure(objective)
        first = next(iter(figures.values()))
        values = {name: figure.value for name, figure in figures.items()}
        with self.state.average.applied(self.model.network):
            concepts = concept_figures(self.model, self.materials.held_out)
        self.book.note(
            step=self.state.step,
            headline=values | concepts,
            **self._cost(),  # a run that dies before its next checkpoint has cost as much
        )
        line = {"kind": "validation", "step": self.state.step, **values, "stderr": first.stderr, "rows": first.n}
        self._emit({**line, **concepts, "seconds": self.seconds})

    def _own_figure(self, objective: Assessed) -> dict[str, Measurement]:
        """What a model is judged by that gives text no likelihood."""
        with self.state.average.applied(self.model.network):
            rows = row_assessments(self.model, self.materials.held_out, **self._draws())
        figure = assessment_measurement(rows, objective=objective, unit="", trivial={}, protocol={})
        return {figure.name: figure}

    def _draws(self) -> dict[str, int]:
        """How much noise held-out rows are judged with, and how many at once."""
        return {"draws": VALIDATION_DRAWS, "seed": self.recipe.seed, "at_once": self.recipe.evaluation.batch_size}

    def _likelihood(self) -> dict[str, Measurement]:
        """Bits per byte and nats per token of held-out rows, or their bounds."""
        with self.state.average.applied(self.model.network):
            end_share = self.materials.end_share
            sums = row_likelihoods(self.model, self.materials.held_out, end_share=end_share, **self._draws())
        figures = {m.name: m for m in likelihood_measurements(sums, trivial_nats={}, protocol={})}
        return {name: figures[name] for name in ("bits_per_byte", "nats_per_token")}

    def _show_sample(self) -> None:
        if not draws_text(self.model.objective):
            with self.state.average.applied(self.model.network):
                ids = rebuilt_text(self.model, self.materials.held_out[0], seed=self.recipe.seed)
            if ids is not None:
                text = self.model.tokenizer.decode(ids.numpy())
                self._emit({"kind": "sample", "step": self.state.step, "what": RECONSTRUCTION, "text": text})
            return
        (sample,) = self._draw(count=1).records
        self._emit({"kind": "sample", "step": self.state.step, "text": sample["text"]})

    def _draw(self, *, count: int) -> Drawing:
        """Samples of the averaged weights, from nothing or from prompts of held-out pairs."""
        store = self.materials.text.stores["validation"]
        prompt, words = own_prompts(self.model, self.recipe, store, count=count)
        with self.state.average.applied(self.model.network):
            run, step = self.book.record.id, self.state.step
            return draw_samples(self.model, self.recipe, prompt, words=words, run=run, step=step)

    def _checkpoint(self, reading: Mapping[str, Any] | None) -> None:
        """Keeps the state, unless its weights are such that nobody should go on from them."""
        if not self.guard.before_checkpoint(self.state.step):
            return
        scaler = self.accelerator.scaler
        lanes = self.world.gather(reading or {})
        extra = {
            "seconds": self.seconds,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "window": self.window.to_json(),
            "rate": self.rate,
            "retries": self.retries,
            "reading": self.materials.feed.joined(lanes),
            "monitor": self.guard.monitor.state(),
        }
        self.checkpoints.save(self.state, extra=extra, world=self.world)
        self.book.note(step=self.state.step, **self._cost())

    def _cost(self) -> dict[str, Any]:
        seconds = max(self.seconds, 1e-9)
        each = self.book.record.flops_per_token
        return {
            "tokens_seen": self.state.tokens,
            "seconds": self.seconds,
            "flops": None if each is None else each * self.state.tokens,
            "steps_per_second": self.state.step / seconds,
            "tokens_per_second": self.state.tokens / seconds,
            "peak_memory_bytes": self._peak_memory(),
        }

    def _peak_memory(self) -> int | None:
        """The most memory that any part of a resumed run had in use, bytes."""
        known = [self.book.record.peak_memory_bytes, peak_memory_bytes(self.model.device)]
        return max((size for size in known if size is not None), default=None)

    def _finish(self) -> None:
        with self.state.average.applied(self.model.network):
            save_model(self.model, self.recipe, self.folder.model_path, world=self.world)
        if draws_text(self.model.objective):
            self.book.keep_samples(self._draw(count=self.recipe.sampling.count), step=self.state.step)
        self._end("finished", error=None)

    def _end(self, status: str, *, error: str | None) -> None:
        judged = verdict(self.folder.metrics()) if self.world.is_main else None
        self.book.note(
            status=status,
            error=error,
            finished=timestamp(),
            step=self.state.step,
            verdict=judged.sentence if judged else None,
            **self._cost(),
        )


def make_accelerator(device: torch.device, *, precision: str) -> Accelerator:
    """Accelerate on a device, without the state of an earlier run in this process.

    Args:
        device: this process's own.
        precision: `float32`, `bf16` or `fp16`.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # Accelerate takes the current one, whichever the recipe named
    AcceleratorState._reset_state(reset_partial_state=True)
    half = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}[precision]
    return Accelerator(cpu=device.type == "cpu", mixed_precision=half)
