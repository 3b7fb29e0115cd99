"""Safetensors files of a pretrained model: found in a folder or on the Hub, read one tensor at a time, recognised."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from remask.errors import UserError

SAMPLED = 1 << 20
"""Bytes at a file's end that its fingerprint takes in, besides its header and its size."""
_WANTED = ["*.safetensors", "*.safetensors.index.json", "config.json"]


@dataclass(frozen=True)
class WeightFiles:
    """Open files and the tensors they hold.

    Attributes:
        folder: where they are.
        places: tensor's name → the open file.
    """

    folder: Path
    places: Mapping[str, Any]

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, as it was saved.

        Raises:
            UserError: when there is none of that name.
        """
        if name not in self.places:
            raise UserError(
                f"{self.folder} holds no tensor {name}: its files are laid out in a way that is not known (experts "
                "fused into one tensor, or held in 4 bits already). Give the model as it was published, in full"
            )
        return self.places[name].get_tensor(name)


def folder_of(source: str) -> Path:
    """A model's folder on this machine: itself, or a copy of what the Hub has (downloaded where it is missing).

    Raises:
        UserError: when it is not there and the Hub cannot be reached, or holds no safetensors.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _from_hub(source)
    if not _files(folder):
        raise UserError(
            f"network.name={source}: {folder} holds no .safetensors file; give a model that was saved as safetensors"
        )
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    with suppress(Exception):  # not there, whatever the client calls that
        folder = Path(snapshot_download(name, allow_patterns=_WANTED, local_files_only=True))
        if (files := _files(folder)) and all(path.is_file() for path in files):  # a download that broke off is not
            return folder
    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:  # the client has exceptions of its own, and the network's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"network.name={name}: its weights cannot be had from the Hub ({reason}); check the name and the network, "
            "or give a folder"
        ) from None


def _files(folder: Path) -> list[Path]:
    """The files that an index names, or all there are."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    return sorted(folder.glob("*.safetensors"))


@contextmanager
def opened_weights(folder: Path) -> Iterator[WeightFiles]:
    """The weights of a folder, open for reading.

    Raises:
        UserError: when a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    with ExitStack() as stack:
        places: dict[str, Any] = {}
        for path in _files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise UserError(f"{path} cannot be read ({error}); fetch the model again") from None
            places |= dict.fromkeys(file.keys(), file)
        yield WeightFiles(folder, places)


def fingerprint(folder: Path) -> str:
    """By which a model is recognised: its shape, and of each file of weights the size, the header and the last MiB.

    Not every weight is read, which would take minutes for a large model: it tells other models and other versions
    apart, and finds no single flipped bit.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in _files(folder):
        with path.open("rb") as file:
            length = file.read(8)
            digest.update(length + file.read(int.from_bytes(length, "little")))
            size = path.stat().st_size
            file.seek(max(0, size - SAMPLED))
            digest.update(size.to_bytes(8, "little") + file.read())
    return digest.hexdigest()
