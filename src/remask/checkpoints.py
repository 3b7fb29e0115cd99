"""Checkpoints: safetensors and JSON, written beside their final place and renamed, never pickled.

A checkpoint folder `step-N` holds `network.safetensors`, `average.safetensors`, `optimizer.safetensors` and
`state.json` with the digest of each and of itself, so that damage is noticed before a weight is used. Of weights that
are sharded over W processes each writes its own rows, `network-2-of-4.safetensors`; rows put together are the tensor,
so that any number of processes can read what any other number wrote.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from remask.errors import RunError, UserError
from remask.optimisation import (
    kept_parameters,
    load_optimizer_tensors,
    optimizer_names,
    optimizer_parameter,
    optimizer_tensors,
)
from remask.parallel import ALONE, World
from remask.sharding import is_sharded, own_rows
from remask.tensor_files import Stored, check_digest, opened, part_names, part_of, write_tensors
from remask.training import TrainingState

_STATE = "state.json"
_NAMES = ("network", "average", "optimizer")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: holds one folder a checkpoint; on several machines one that all of them see.
        keep: how many of the newest are kept, at least 1.
    """

    folder: Path
    keep: int

    def save(self, state: TrainingState, *, extra: Mapping[str, Any], world: World = ALONE) -> Path:
        """Writes `step-N` for the state's step, then removes the oldest beyond `keep`.

        Args:
            state: what to keep.
            extra: plain values to find again in `state.json`; the main process's are written.
            world: the processes that train; all of them call this.

        Raises:
            RunError: on all of them, when the disk refuses one; older checkpoints stay as they are.
        """
        target = self.folder / f"step-{state.step}"
        temporary = self.folder / f".step-{state.step}.partial"
        parts = world.size if any(is_sharded(p) for p in state.network.parameters()) else 1

        def make_room() -> None:
            with self._disk(state.step):
                for leftover in self.folder.glob(".step-*.partial"):  # of a process that was killed while writing
                    shutil.rmtree(leftover, ignore_errors=True)
                temporary.mkdir(parents=True)

        def write() -> dict[str, str]:
            with self._disk(state.step):
                return _write_part(temporary, state, part=world.rank, parts=parts) if world.rank < parts else {}

        def finish() -> None:
            with self._disk(state.step):
                _write_state(temporary, state, {"parts": parts, "digests": digests, "extra": dict(extra)})
                self._put(temporary, target)

        try:
            world.on_main(make_room)
            digests = {name: digest for part in world.gather(world.together(write)) for name, digest in part.items()}
            world.on_main(finish)
        except RunError:
            if world.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        return target

    def _put(self, temporary: Path, target: Path) -> None:
        """Gives a finished checkpoint its name, and removes what is then too old."""
        replaced = _replaced(target)
        if target.exists():  # aside, where `list` finds it, so that at no moment there is neither
            shutil.rmtree(replaced, ignore_errors=True)
            target.rename(replaced)
        temporary.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
        self._drop_old(target.name)

    def _drop_old(self, newest: str) -> None:
        """Removes what is too old beside a checkpoint that is known to be whole, by an earlier process's kill too."""
        names = [path.name for path in self.list()]
        for name in names[: max(0, names.index(newest) + 1 - self.keep)]:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @contextmanager
    def _disk(self, step: int) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"the checkpoint of step {step} could not be written to {self.folder}: {error}. Free some space "
                "or set REMASK_HOME to a folder on another disk; earlier checkpoints are untouched"
            ) from error

    def list(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        found: dict[int, Path] = {}
        for path in (*self.folder.glob(".step-*.replaced"), *self.folder.glob("step-*")):
            number = path.name.removeprefix(".").removeprefix("step-").removesuffix(".replaced")
            if number.isdecimal() and path.is_dir():
                found[int(number)] = path
        return [found[step] for step in sorted(found)]

    def load_newest(self, state: TrainingState, *, world: World = ALONE) -> dict[str, Any]:
        """Puts the newest undamaged checkpoint into `state`.

        Args:
            state: changed in place; its weights may be whole or sharded, whichever they were when it was written.
            world: the processes that train; all of them call this.

        Returns:
            The `extra` values it was saved with, and under `damaged` the names of newer checkpoints passed over.

        Raises:
            UserError: when there is none, or none that is whole and fits this network.
        """
        damaged = []
        for name in world.share([path.name for path in reversed(self.list())]):
            try:
                extra = load_checkpoint(self.folder / name, state, world=world)
            except DamagedCheckpoint as error:
                damaged.append(f"{name} ({error})")
                continue
            world.on_main(partial(self._drop_old, name))
            return {**extra, "damaged": damaged}
        if damaged:
            raise UserError(f"no whole checkpoint in {self.folder}: {'; '.join(damaged)}. Train again from the start")
        raise UserError(f"{self.folder} holds no checkpoint to resume from. Train again from the start")


class DamagedCheckpoint(Exception):
    """A checkpoint whose files are missing, cut short or changed."""


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _write_part(folder: Path, state: TrainingState, *, part: int, parts: int) -> dict[str, str]:
    """Writes what one process holds; returns the digest of each of its files by the file's name without ending."""
    tensors = {
        "network": network_tensors(state.network),
        "average": state.average.average,
        "optimizer": optimizer_tensors(state.optimizers),
    }
    names = {name: part_names(name, parts=parts)[part] for name in _NAMES}
    return {
        names[name]: write_tensors(folder / f"{names[name]}.safetensors", part_of(tensors[name], part=part))
        for name in _NAMES
    }


def _write_state(folder: Path, state: TrainingState, record: Mapping[str, Any]) -> None:
    record = {
        **record,
        "step": state.step,
        "tokens": state.tokens,
        "optimizers": optimizer_names(state.optimizers),
    }
    text = json.dumps(record, sort_keys=True)
    sealed = {"digest": _text_digest(text), "record": json.loads(text)}
    (folder / _STATE).write_text(json.dumps(sealed, indent=1, sort_keys=True), encoding="utf-8")


def _read_state(folder: Path) -> dict[str, Any]:
    sealed = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if _text_digest(json.dumps(sealed["record"], sort_keys=True)) != sealed["digest"]:
        raise ValueError(f"{_STATE} is damaged: its digest is not the recorded one")
    return sealed["record"]


def _text_digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_checkpoint(folder: Path, state: TrainingState, *, world: World = ALONE) -> dict[str, Any]:
    """Reads one checkpoint into `state`, after all of its digests have been checked.

    Args:
        folder: of the checkpoint.
        state: changed in place, and not at all where something is raised.
        world: the processes that train; all of them call this, and share the work of checking.

    Raises:
        DamagedCheckpoint: when a file is missing, cut short or changed.
        UserError: when it belongs to a network of other shapes, or to other optimisers.
    """
    with ExitStack() as stack:
        problem, record, files = None, {}, {}
        try:
            record = _checked_record(folder, part=world.rank, parts=world.size)
            for name in _NAMES:
                paths = [folder / f"{stem}.safetensors" for stem in part_names(name, parts=record.get("parts", 1))]
                files[name] = stack.enter_context(opened(paths))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            problem = str(error).partition("\n")[0]
        problems = [found for found in world.gather(problem) if found is not None]
        if problems:
            raise DamagedCheckpoint(problems[0])
        _check_optimizers(state, record["optimizers"], source=folder)
        _check_fit(state.network, files["network"].shapes, source=folder)
        _take(state, files)
    state.step, state.tokens = int(record["step"]), int(record["tokens"])
    return dict(record["extra"])


def _checked_record(folder: Path, *, part: int, parts: int) -> dict[str, Any]:
    """The record of a checkpoint, of whose files every `parts`th has been checked, from the one of number `part` on."""
    record = _read_state(folder)
    record["step"], record["tokens"] = int(record["step"]), int(record["tokens"])
    record["optimizers"], record["extra"] = list(record["optimizers"]), dict(record["extra"])
    for name, digest in sorted(record["digests"].items())[part::parts]:
        check_digest(folder / f"{name}.safetensors", digest)
    return record


@torch.no_grad()
def _take(state: TrainingState, files: Mapping[str, Stored]) -> None:
    """Puts tensors into the state, this process's rows of those that are sharded."""
    for name, parameter in kept_parameters(state.network).items():
        own_rows(parameter).copy_(files["network"].own_rows(name, like=parameter))
        average = state.average.average[name]
        own_rows(average).copy_(files["average"].own_rows(name, like=average))
    stored = files["optimizer"]
    values = {name: stored.read(name, like=optimizer_parameter(state.optimizers, name)) for name in stored.shapes}
    load_optimizer_tensors(state.optimizers, values)


def _check_optimizers(state: TrainingState, saved: list[str], *, source: Path) -> None:
    own = optimizer_names(state.optimizers)
    if saved != own:
        raise UserError(
            f"{source}: the optimiser was {' and '.join(saved)} there, and is {' and '.join(own)} in this recipe. Use "
            "the recipe it was trained with"
        )


def network_tensors(network: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters by name, each shared one once; frozen ones, which are found again elsewhere, left out."""
    return {name: value.detach() for name, value in kept_parameters(network).items()}


def put_weights(network: torch.nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Copies named tensors into the network's parameters.

    Raises:
        UserError: when names or shapes differ, with the first that does (another vocabulary, another size).
    """
    _check_fit(network, {name: value.shape for name, value in tensors.items()}, source=source)
    with torch.no_grad():
        for name, parameter in kept_parameters(network).items():
            parameter.copy_(tensors[name])


def _check_fit(network: torch.nn.Module, shapes: Mapping[str, torch.Size], *, source: Path) -> None:
    own = kept_parameters(network)
    if own.keys() != shapes.keys():
        differing = sorted(own.keys() ^ shapes.keys())
        raise UserError(
            f"{source}: weights of another network ({differing[0]} is in only one of the two). "
            "Use the recipe it was trained with"
        )
    for name, parameter in own.items():
        if parameter.shape != shapes[name]:
            listed = f"{list(shapes[name])} there, {list(parameter.shape)} in this recipe"
            same_width = parameter.shape[1:] == shapes[name][1:]
            vocabulary = " (another vocabulary)" if name.startswith(("embedding", "head")) and same_width else ""
            raise UserError(f"{source}: {name} has shape {listed}{vocabulary}. Use the recipe it was trained with")
