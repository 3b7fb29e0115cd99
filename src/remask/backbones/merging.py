"""A pretrained model with what it learned added to its weights, written as the library's own kind of folder.

Tensors are made and written one file at a time, so that a model in 4 bits is never there in full. Weights that were
held in 4 bits are written as the values those bits stand for: the model that was trained, not the one it came from.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remask.errors import RunError, UserError

SHARD = 4 * 10**9
"""Bytes of tensors in one file, at most (but for a single tensor that is larger)."""
_INDEX = "model.safetensors.index.json"


def write_merged(config: Any, tensors: Iterable[tuple[str, Tensor]], folder: Path, *, kind: str) -> None:
    """Writes `config.json` and safetensors that `AutoModelForCausalLM.from_pretrained` loads.

    Args:
        config: the library's; its dtype is what the tensors are written in, float32 where it says none.
        tensors: by the names of published files, each made when it is its turn.
        folder: made where it is missing, and otherwise empty.
        kind: the library's class of the model.

    Raises:
        UserError: when the folder holds something already.
        RunError: when the disk refuses.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; give a new folder")
    described = deepcopy(config)
    described.architectures = [kind]
    if hasattr(described, "quantization_config"):
        del described.quantization_config
    dtype = described.dtype if isinstance(described.dtype, torch.dtype) else torch.float32
    described.dtype = dtype
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_shards(folder, ((name, value.to("cpu", dtype).contiguous()) for name, value in tensors))
        described.save_pretrained(folder)
    except OSError as error:
        raise RunError(f"the merged model could not be written to {folder}: {error}. Free some space") from error


def _write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    from safetensors.torch import save_file

    places: list[list[str]] = []
    size = 0
    for number, shard in enumerate(_shards(tensors), start=1):
        save_file(dict(shard), folder / f"model-{number:05}.safetensors", metadata={"format": "pt"})
        places.append(list(shard))
        size += sum(value.numel() * value.element_size() for value in shard.values())
    weights = {}
    for number, names in enumerate(places, start=1):
        final = f"model-{number:05}-of-{len(places):05}.safetensors"
        (folder / f"model-{number:05}.safetensors").rename(folder / final)
        weights |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": size}, "weight_map": weights}
    (folder / _INDEX).write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")


def _shards(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, value in tensors:
        own = value.numel() * value.element_size()
        if shard and size + own > SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = value
        size += own
    if shard:
        yield shard
