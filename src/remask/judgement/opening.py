"""Readers from the names that a user gives: a run, or a folder with a model of remask or of transformers.

A reader's protocol has a hash of its weights and of its tokenizer, so that another model under the same name is
another reader. Nothing is fetched, and nothing that could hold code is read: weights are safetensors.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from remask.config.pretrained import quiet
from remask.config.saved import load_model
from remask.data.cache import file_hash
from remask.errors import UserError
from remask.evaluation.causal_reader import CausalReader
from remask.judgement.readers import FolderReader, Reader, RunReader
from remask.runs import Registry

_CONFIG = "config.json"
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt"),
    *("special_tokens_map.json", "added_tokens.json", "tokenizer.model", "spiece.model"),
)


def load_judge(reference: str, *, registry: Registry, device: torch.device) -> Reader:
    """A model whose likelihood is exact, which judges samples.

    Args:
        reference: an autoregressive run of the registry, or a folder with a causal language model.
        registry: of the runs.
        device: where it computes.

    Raises:
        UserError: there is no such model, it is damaged, or it only bounds the likelihood.
    """
    reader = _load(reference, "--judge", registry=registry, device=device)
    if isinstance(reader, RunReader) and not reader.model.objective.exact:
        raise UserError(
            f"--judge {reference}: its likelihood is a bound. Give an autoregressive run, e.g. of recipe ar, or a "
            "folder with a causal language model"
        )
    return reader


def load_features(reference: str, *, registry: Registry, device: torch.device) -> Reader:
    """A model whose hidden states stand for texts; any run, or a folder with a causal language model.

    Args and errors as for `load_judge`, but that the likelihood may be a bound.
    """
    return _load(reference, "--features", registry=registry, device=device)


def _load(reference: str, option: str, *, registry: Registry, device: torch.device) -> Reader:
    folder = Path(reference).expanduser()
    if not (folder / _CONFIG).is_file():
        return _load_run(reference, option, registry=registry, device=device)
    if _is_remask(folder):
        return _run_reader(folder.resolve().name, folder, device=device)
    return _folder_reader(folder.resolve(), option, device=device)


def _load_run(reference: str, option: str, *, registry: Registry, device: torch.device) -> RunReader:
    folder = Path(reference).expanduser()
    if folder.is_dir() and not (folder / "run.json").is_file():
        raise UserError(
            f"{option} {reference}: the folder holds neither a run (run.json) nor a model (config.json). Give one that "
            "does"
        )
    try:
        record = registry.find(reference)
    except UserError as error:
        raise UserError(
            f"{option} {reference}: there is no such folder, and {error} A model of the Hub must be downloaded to a "
            f"folder first (hf download {reference} --local-dir FOLDER), and the folder given"
        ) from None
    return _run_reader(record.id, registry.folder_of(record).model_path, device=device)


def _run_reader(name: str, folder: Path, *, device: torch.device) -> RunReader:
    model, _ = load_model(folder, device=device)
    return RunReader(name=name, model=model, weights=_hash([folder / _CONFIG, *sorted(folder.glob("*.safetensors"))]))


def _folder_reader(folder: Path, option: str, *, device: torch.device) -> FolderReader:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(
            f"{option} {folder}: it has no *.safetensors, and other formats of weights can hold code. Save the model "
            "again with save_pretrained"
        )
    try:
        model, tokenizer = _opened(folder, device=device)
    except Exception as error:  # the library's parsers each have exceptions of their own
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{option} {folder}: no causal language model of transformers can be loaded from it ({said}). Give a "
            "folder that save_pretrained wrote, with its tokenizer"
        ) from None
    reader = CausalReader.of(model, tokenizer, name=f"{option} {folder}")
    if not reader.is_causal():
        raise UserError(
            f"{option} {folder}: its predictions change with tokens that come later, so they make no likelihood. Give "
            "a causal language model"
        )
    files = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    return FolderReader(
        name=folder.name, reader=reader, weights=_hash([folder / _CONFIG, *weights]), tokenizer=_hash(files)
    )


def _opened(folder: Path, *, device: torch.device) -> tuple[Any, Any]:
    """Model and tokenizer of transformers, in float32 whatever is stored, so that figures are exact.

    Raises:
        ValueError: weights are missing, which the library would draw at random.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet(), torch.random.fork_rng(devices=[]):  # missing rows are drawn from torch's global generator
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        model, found = loaded
        if found["missing_keys"]:
            raise ValueError(f"its files lack {sorted(found['missing_keys'])[0]}")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return model.to(device), tokenizer


def _is_remask(folder: Path) -> bool:
    try:
        return json.loads((folder / _CONFIG).read_bytes()).get("model_type") == "remask"
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _hash(files: list[Path]) -> str:
    """A hash of the files' names and contents, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        digest.update(f"{path.name} {file_hash(path)}\n".encode())
    return digest.hexdigest()
