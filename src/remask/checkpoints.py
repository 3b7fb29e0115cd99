"""Checkpoints: safetensors and JSON, written beside their final place and renamed, never pickled.

A checkpoint folder `step-N` holds `network.safetensors`, `average.safetensors`, `optimizer.safetensors` and
`state.json` with the digest of each and of itself, so that damage is noticed before a weight is used.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from remask.errors import RunError, UserError
from remask.optimisation import kept_parameters, load_optimizer_tensors, optimizer_names, optimizer_tensors
from remask.training import TrainingState

_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: holds one folder a checkpoint.
        keep: how many of the newest are kept, at least 1.
    """

    folder: Path
    keep: int

    def save(self, state: TrainingState, *, extra: Mapping[str, Any]) -> Path:
        """Writes `step-N` for the state's step, then removes the oldest beyond `keep`.

        Args:
            state: what to keep.
            extra: plain values to find again in `state.json`.

        Raises:
            RunError: when the disk refuses; older checkpoints stay as they are.
        """
        target = self.folder / f"step-{state.step}"
        temporary = self.folder / f".step-{state.step}.partial"
        try:
            for leftover in self.folder.glob(".step-*.partial"):  # of a process that was killed while writing
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(temporary, state, extra)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise RunError(
                f"the checkpoint of step {state.step} could not be written to {self.folder}: {error}. Free some space "
                "or set REMASK_HOME to a folder on another disk; earlier checkpoints are untouched"
            ) from error
        for old in self.list()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def list(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        numbered = {p: p.name.removeprefix("step-") for p in self.folder.glob("step-*")}
        found = [p for p, number in numbered.items() if number.isdecimal() and p.is_dir()]
        return sorted(found, key=lambda path: int(numbered[path]))

    def load_newest(self, state: TrainingState) -> dict[str, Any]:
        """Puts the newest undamaged checkpoint into `state`.

        Returns:
            The `extra` values it was saved with, and under `damaged` the names of newer checkpoints passed over.

        Raises:
            UserError: when there is none, or none that is whole and fits this network.
        """
        damaged = []
        for folder in reversed(self.list()):
            try:
                extra = load_checkpoint(folder, state)
            except DamagedCheckpoint as error:
                damaged.append(f"{folder.name} ({error})")
                continue
            return {**extra, "damaged": damaged}
        if damaged:
            raise UserError(f"no whole checkpoint in {self.folder}: {'; '.join(damaged)}. Train again from the start")
        raise UserError(f"{self.folder} holds no checkpoint to resume from. Train again from the start")


class DamagedCheckpoint(Exception):
    """A checkpoint whose files are missing, cut short or changed."""


def _write(folder: Path, state: TrainingState, extra: Mapping[str, Any]) -> None:
    digests = {
        name: write_tensors(folder / f"{name}.safetensors", tensors)
        for name, tensors in {
            "network": network_tensors(state.network),
            "average": state.average.average,
            "optimizer": optimizer_tensors(state.optimizers),
        }.items()
    }
    record = {
        "step": state.step,
        "tokens": state.tokens,
        "optimizers": optimizer_names(state.optimizers),
        "digests": digests,
        "extra": dict(extra),
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


def load_checkpoint(folder: Path, state: TrainingState) -> dict[str, Any]:
    """Reads one checkpoint into `state`, after all of its digests have been checked.

    Raises:
        DamagedCheckpoint: when a file is missing, cut short or changed.
        UserError: when it belongs to a network of other shapes, or to other optimisers.
    """
    try:
        record = _read_state(folder)
        tensors = {
            name: read_tensors(folder / f"{name}.safetensors", digest=digest)
            for name, digest in record["digests"].items()
        }
        network, average, optimizer = tensors["network"], tensors["average"], tensors["optimizer"]
        step, tokens, extra = int(record["step"]), int(record["tokens"]), dict(record["extra"])
        saved, own = record["optimizers"], optimizer_names(state.optimizers)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedCheckpoint(str(error)) from error
    if saved != own:
        raise UserError(
            f"{folder}: the optimiser was {' and '.join(saved)} there, and is {' and '.join(own)} in this recipe. Use "
            "the recipe it was trained with"
        )
    put_weights(state.network, network, source=folder)
    device = next(state.network.parameters()).device
    state.average.average = {name: value.to(device) for name, value in average.items()}
    load_optimizer_tensors(state.optimizers, optimizer)
    state.step, state.tokens = step, tokens
    return extra


def network_tensors(network: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters by name, each shared one once; frozen ones, which are found again elsewhere, left out."""
    return {name: value.detach() for name, value in kept_parameters(network).items()}


def put_weights(network: torch.nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Copies named tensors into the network's parameters.

    Raises:
        UserError: when names or shapes differ, with the first that does (another vocabulary, another size).
    """
    own = kept_parameters(network)
    if own.keys() != tensors.keys():
        differing = sorted(own.keys() ^ tensors.keys())
        raise UserError(
            f"{source}: weights of another network ({differing[0]} is in only one of the two). "
            "Use the recipe it was trained with"
        )
    for name, parameter in own.items():
        if parameter.shape != tensors[name].shape:
            shapes = f"{list(tensors[name].shape)} there, {list(parameter.shape)} in this recipe"
            same_width = parameter.shape[1:] == tensors[name].shape[1:]
            vocabulary = " (another vocabulary)" if name.startswith(("embedding", "head")) and same_width else ""
            raise UserError(f"{source}: {name} has shape {shapes}{vocabulary}. Use the recipe it was trained with")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Saves tensors as safetensors and returns the file's digest."""
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    return file_digest(path)


def read_tensors(path: Path, *, digest: str) -> dict[str, Tensor]:
    """Loads safetensors whose digest is known.

    Raises:
        ValueError: when the file is not the one that was written.
    """
    if file_digest(path) != digest:
        raise ValueError(f"{path.name} is damaged: its digest is not the recorded one")
    return load_file(path)


def file_digest(path: Path) -> str:
    """BLAKE2b of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
