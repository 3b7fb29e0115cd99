"""Named tensors on disk as safetensors: in one file, or cut by rows into one part for each process that wrote them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from remask.sharding import is_sharded, own_range, own_rows, shared_out


def part_names(name: str, *, parts: int) -> list[str]:
    """The names, without ending, of the files that together hold what is called `name`."""
    return [name] if parts == 1 else [f"{name}-{part}-of-{parts}" for part in range(1, parts + 1)]


def part_of(tensors: Mapping[str, Tensor], *, part: int) -> dict[str, Tensor]:
    """What one process writes: its own rows of sharded tensors, and the first process all others."""
    return {name: own_rows(value) for name, value in tensors.items() if is_sharded(value) or part == 0}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Saves tensors as safetensors and returns the file's digest."""
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    return file_digest(path)


def read_tensors(path: Path, *, digest: str) -> dict[str, Tensor]:
    """Loads safetensors whose digest is known.

    Raises:
        ValueError: when the file is not the one that was written.
    """
    check_digest(path, digest)
    return load_file(path)


def check_digest(path: Path, digest: str) -> None:
    """Sees to it that a file is the one that was written.

    Raises:
        ValueError: when it is not.
    """
    if file_digest(path) != digest:
        raise ValueError(f"{path.name} is damaged: its digest is not the recorded one")


def file_digest(path: Path) -> str:
    """BLAKE2b of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@dataclass(frozen=True)
class Stored:
    """Tensors on disk, of which only what is asked for is read.

    Attributes:
        parts: the open files, in the order of their rows.
        shapes: of the whole tensors, by name.
    """

    parts: Sequence[Any]
    shapes: Mapping[str, torch.Size]

    def read(self, name: str, *, like: Tensor) -> Tensor:
        """One tensor in memory of its own, on the CPU: shared out as `like` is if it has its shape, else whole."""
        if is_sharded(like) and self.shapes[name] == like.shape:
            rows = self._rows(name, own_range(like)).to(device=like.device, dtype=like.dtype)
            return shared_out(rows, like=like)
        if not self.shapes[name]:
            return self.parts[0].get_tensor(name).clone()
        return self._rows(name, range(self.shapes[name][0]))

    def own_rows(self, name: str, *, like: Tensor) -> Tensor:
        """The rows of one tensor that this process holds of `like`, which has its shape; on the CPU."""
        return own_rows(self.read(name, like=like))

    def _rows(self, name: str, wanted: range) -> Tensor:
        found, start = [], 0
        for part in self.parts:
            if name in part.keys():  # noqa: SIM118 (an open file is no dict)
                piece = part.get_slice(name)
                rows = piece.get_shape()[0]
                first, last = max(wanted.start - start, 0), min(wanted.stop - start, rows)
                if first < last or not found:
                    found.append(piece[max(min(first, rows), 0) : max(last, 0)])
                start += rows
        return torch.cat(found)


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[Stored]:
    """Opens the parts that together hold some tensors.

    Raises:
        OSError, SafetensorError: when one cannot be read.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        shapes: dict[str, torch.Size] = {}
        for part in parts:
            for name in part.keys():  # noqa: SIM118
                shape = torch.Size(part.get_slice(name).get_shape())
                rows = (shapes[name][0] if name in shapes else 0) + (shape[0] if shape else 0)
                shapes[name] = torch.Size([rows, *shape[1:]]) if shape else shape
        yield Stored(parts, shapes)
