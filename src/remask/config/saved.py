"""Whole models on disk: `config.json`, `model.safetensors` and the tokenizer, in one folder."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from remask.backbones.files import fingerprint, folder_of
from remask.checkpoints import network_tensors, put_weights
from remask.config.adaptation import plain_tensors
from remask.config.build import build_model
from remask.config.pretrained import architecture_of
from remask.config.schema import Recipe
from remask.errors import RunError, UserError
from remask.model import Model
from remask.networks.concepts.prior import ConceptPriorNetwork
from remask.networks.thought import FrozenCodec, ThoughtNetwork
from remask.parallel import ALONE, World
from remask.sharding import is_sharded, whole
from remask.tensor_files import read_tensors, write_tensors
from remask.tokenizers import load_tokenizer

FORMAT = 1


def save_model(model: Model, recipe: Recipe, folder: Path, *, world: World = ALONE) -> None:
    """Writes a model beside its final place and renames it there, replacing an older one.

    Where the recipe names a base (`network.saved`), what was trained is saved alone, with the base's name and
    fingerprint. Else low-rank adapters are added to the weights beside them and weights in 4 bits become float32, so
    that a saved model needs neither their packages nor the model it was adapted from. Sharded weights are put together.

    Args:
        model: its weights are saved as they are.
        recipe: what `load_model` builds the model from again.
        folder: the place.
        world: the processes that trained it; all of them call this, and the main one writes.

    Raises:
        RunError: on all of them, when the disk refuses; an older model stays.
    """
    own = network_tensors if saved_base(recipe) is not None else plain_tensors
    tensors = _whole_tensors(own(model.network), keep=world.is_main)
    world.on_main(lambda: _write_model(model, tensors, recipe, folder))


def saved_base(recipe: Recipe) -> str | None:
    """The model beside which a recipe's finished one is found; None where it holds all weights itself."""
    return getattr(recipe.network, "saved_base", None)


def _whole_tensors(own: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Tensors put together one at a time where they are sharded; kept by one process alone."""
    tensors = {}
    for name, value in own.items():
        together = whole(value)
        if keep:
            tensors[name] = together.cpu() if is_sharded(value) else together
    return tensors


def _write_model(model: Model, tensors: Mapping[str, Tensor], recipe: Recipe, folder: Path) -> None:
    temporary = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        digest = write_tensors(temporary / "model.safetensors", tensors)
        model.tokenizer.save(temporary / "tokenizer")
        record = {
            "format": FORMAT,
            "model_type": "remask",  # by which transformers finds `remask.hub`
            "weights": digest,
            "tokenizer": model.tokenizer.fingerprint,
            "recipe": recipe.model_dump(mode="json"),
            "architecture": _architecture(model.network),
            "base": _base(saved_base(recipe)),
        }
        record["seal"] = _seal(record)
        (temporary / "config.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(
            f"the model could not be written to {folder}: {error}. Free some space and resume the run"
        ) from error


def _architecture(network: nn.Module) -> dict[str, Any] | None:
    """What a finished model within the network is built from again; None where there is none."""
    if isinstance(network, ConceptPriorNetwork):
        return {"codec": dict(network.origin)}
    if isinstance(network, ThoughtNetwork) and isinstance(network.codec, FrozenCodec):
        assert isinstance(network.trunk, nn.Module)
        return {**network.codec.origin, "trunk": architecture_of(network.trunk)}
    return architecture_of(network)


def _base(name: str | None) -> dict[str, str] | None:
    """By which the model that is not saved is found and recognised."""
    return None if name is None else {"name": name, "fingerprint": fingerprint(folder_of(name))}


def _check_base(base: Mapping[str, str], *, source: Path) -> None:
    """Refuses a base other than the one that was adapted: adapters fit any model of its shape, and fail on all others.

    Raises:
        UserError: when it is another, or is not there.
    """
    if fingerprint(folder_of(base["name"])) != base["fingerprint"]:
        raise UserError(
            f"{source} holds what was trained beside {base['name']}, and that model is not the one it was trained "
            "beside any more. Restore it"
        )


def _seal(record: Mapping[str, Any]) -> str:
    """Digest of what nothing else vouches for: a bit that flips in the recipe would give other figures in silence."""
    said = [record["recipe"], record["architecture"], *([record["base"]] if record.get("base") else [])]
    text = json.dumps(said, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_model(folder: Path, *, device: torch.device) -> tuple[Model, Recipe]:
    """Reads what `save_model` wrote.

    Raises:
        UserError: when the folder holds no model, or one that is damaged, or the model it was trained beside is gone.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds no finished model. If its run was stopped, resume it: remask train --resume RUN"
        )
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "seal" in record and record["seal"] != _seal(record):
            raise ValueError("config.json is not what was written: its seal does not fit")
        # JSON has lists only, where a strict recipe wants tuples: read it as JSON, in which the two are one
        recipe = Recipe.model_validate_json(json.dumps(record["recipe"]))
        weights = read_tensors(folder / "model.safetensors", digest=record["weights"])
        tokenizer_hash = record["tokenizer"]
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the model in {folder} has a recipe that this version refuses ({key}: {first['msg']}). Train it again, or "
            "use the version that wrote it"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the model in {folder} is damaged ({reason}). Resume or repeat its run to write it again"
        ) from error
    tokenizer = load_tokenizer(folder / "tokenizer")
    if tokenizer.fingerprint != tokenizer_hash:
        raise UserError(f"the tokenizer in {folder} is not the one the model was trained with. Restore the folder")
    base = record.get("base")
    if base is not None:
        _check_base(base, source=folder)
    architecture = record.get("architecture")
    if base is not None:  # the body is opened where it was found; what stands beside it is built again
        architecture = {**architecture, "trunk": None} if "codec" in (architecture or {}) else None
    model = build_model(recipe, tokenizer, device=device, architecture=architecture)
    put_weights(model.network, weights, source=folder)
    model.network.eval()
    return model, recipe
