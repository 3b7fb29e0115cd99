"""Recovered noise in a file: safetensors, with what it is the noise of as JSON in its header, sealed by a digest.

Shape letters: N rows, L length.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from remask.bijections.coding import Coded
from remask.bijections.rows import TokenRows
from remask.errors import UserError
from remask.runs.files import write_atomic

FORMAT = 1
_HEADER = "remask_noise"
_DTYPES = {
    "ids": torch.int64,
    "valid": torch.bool,
    "free": torch.bool,
    "byte_lengths": torch.int64,
    "noise": torch.float64,
    "within": torch.float64,
}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What noise is the noise of: with another value of any of these but the last two it stands for other texts.

    Attributes:
        weights: the digest of the model's weights.
        tokenizer: its tokenizer's fingerprint.
        reveal: the order in which tokens are revealed.
        steps: network calls of a row, or of each block.
        block_length: tokens of a block; None for the row as one.
        seed: keys the order `random`, and the draws within intervals.
        run: the id of the model's run.
        computed: on what device and with which torch, which decide the last bits of the logits.
    """

    weights: str
    tokenizer: str
    reveal: str
    steps: int
    block_length: int | None
    seed: int
    run: str
    computed: str


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFile:
    """What a file of noise holds.

    Attributes:
        origin: what it is the noise of.
        rows: the texts that were encoded.
        noise: u, float64 [N L].
        within: w, float64 [N L].
    """

    origin: Origin
    rows: TokenRows
    noise: Tensor
    within: Tensor


def write_noise(path: Path, *, origin: Origin, rows: TokenRows, coded: Coded) -> None:
    """Writes a file whole or not at all.

    Raises:
        RunError: the disk refuses.
    """
    tensors = {
        **{field.name: getattr(rows, field.name).contiguous() for field in fields(rows)},
        "noise": coded.noise.contiguous(),
        "within": coded.within.contiguous(),
    }
    facts = {"format": FORMAT, **asdict(origin)}
    header = {**facts, "digest": _digest(facts, tensors)}
    write_atomic(path, save(tensors, metadata={_HEADER: json.dumps(header)}))


def read_noise(path: Path) -> NoiseFile:
    """Reads what `write_noise` wrote.

    Raises:
        UserError: the file is missing, holds something else, or is not what was written.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: write one with remask encode RUN TEXT --noise {path.name}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (an open file is no dict)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"{path} is no file of noise ({said}): give one that remask encode --noise wrote") from None
    if (
        not isinstance(header, dict)
        or not {field.name for field in fields(Origin)} <= header.keys()
        or not _fits(tensors)
    ):
        raise UserError(f"{path} is no file of noise: give one that remask encode --noise wrote")
    if header.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {header.get('format')}, and this remask reads {FORMAT}: encode the texts again"
        )
    facts = {name: value for name, value in header.items() if name != "digest"}
    if header.get("digest") != _digest(facts, tensors):
        raise UserError(f"{path} is not what was written: its digest does not fit. Encode the texts again")
    origin = Origin(**{field.name: facts[field.name] for field in fields(Origin)})
    rows = TokenRows(**{field.name: tensors[field.name] for field in fields(TokenRows)})
    return NoiseFile(origin=origin, rows=rows, noise=tensors["noise"], within=tensors["within"])


def check_origin(noise: NoiseFile, path: Path, *, own: Origin) -> None:
    """Refuses noise that another model or another sampler made: it would decode to other texts in silence.

    Args:
        noise: the file's.
        path: its place.
        own: that of what would decode it.

    Raises:
        UserError: when it was made by another model, or in another way.
    """
    made = noise.origin
    if made.weights != own.weights:
        raise UserError(
            f"{path} holds noise of another model (run {made.run}, weights {made.weights[:8]}; {own.run} has "
            f"{own.weights[:8]}). Decode it with that run, or encode the texts with this one"
        )
    for name in ("reveal", "steps", "seed", "block_length"):
        if (here := getattr(own, name)) != getattr(made, name):
            raise UserError(
                f"{path} was encoded with {name} {getattr(made, name)}, and {here} is asked for, under which its noise "
                f"stands for other texts. Valid: {name} {getattr(made, name)}; or encode the texts again"
            )


def _fits(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a file of noise: their names, types, and one shape [N L]."""
    if {name: tensor.dtype for name, tensor in tensors.items()} != _DTYPES:
        return False
    return len({tensor.shape for tensor in tensors.values()}) == 1 and tensors["ids"].ndim == 2


def _digest(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
