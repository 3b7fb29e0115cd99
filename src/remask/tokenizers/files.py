"""Reading a saved tokenizer back."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from remask.errors import UserError, did_you_mean
from remask.tokenizers.base import BACKEND_FILE, CONFIG_FILE, FORMAT, Tokenizer
from remask.tokenizers.bpe import BPETokenizer
from remask.tokenizers.huggingface import HuggingFaceTokenizer
from remask.tokenizers.plain import ByteTokenizer, CharacterTokenizer

KINDS = ("bpe", "byte", "character", "huggingface")


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into `folder`.

    Raises:
        UserError: a file is missing or damaged, of a newer format, or not what was saved.
    """
    source = Path(folder)
    config = _config(source / CONFIG_FILE)
    try:
        tokenizer = _build(config, source)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the tokenizer in {source} is damaged ({error!r}); save it again") from None
    if tokenizer.fingerprint != config.get("fingerprint"):
        raise UserError(f"the tokenizer in {source} is not the one that was saved there; its files were changed")
    return tokenizer


def _build(config: dict[str, Any], source: Path) -> Tokenizer:
    kind = config["kind"]
    if kind == "byte":
        return ByteTokenizer()
    if kind == "character":
        return CharacterTokenizer(config["alphabet"])
    if kind == "bpe":
        return BPETokenizer(_backend(source / BACKEND_FILE), lowercase=bool(config.get("lowercase")))
    if kind == "huggingface":
        backend = _backend(source / BACKEND_FILE)
        return HuggingFaceTokenizer(backend, eos_id=config["eos_id"], mask_id=config["mask_id"])
    raise UserError(f"unknown tokenizer kind {kind!r} in {source / CONFIG_FILE}; {did_you_mean(str(kind), KINDS)}")


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); save the tokenizer again") from None
    if not isinstance(config, dict) or "kind" not in config:
        raise UserError(f"{path} is not a tokenizer of remask (it names no kind)")
    if config.get("format") != FORMAT:
        raise UserError(f"{path} has format {config.get('format')!r}; this version of remask reads {FORMAT}")
    return config


def _backend(path: Path) -> Backend:
    text = _read(path)
    try:
        return Backend.from_str(text)
    except Exception as error:  # the library raises bare Exception for every parse error
        raise UserError(f"{path} is damaged ({error}); save the tokenizer again") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no {path.name} in {path.parent}; a saved tokenizer has one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
