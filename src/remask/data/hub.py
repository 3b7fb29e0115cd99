"""Hugging Face datasets by name or local folder, gathered once into plain files.

The documents are written into the cache at the first use, streamed or not, so that a later run (a resumed one
above all) sees the very same text without a network; the folder can be deleted to gather again.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, cast

from remask.data.cache import cached_folder, file_hash
from remask.data.documents import Pair
from remask.data.embedded import write_documents
from remask.data.readers import FileReader, Reader, checked_text, unknown_key
from remask.data.splits import SPLITS, Split
from remask.data.tables import GATHERED, KEY_OPTIONS, Columns, PairReader, write_pairs
from remask.errors import RunError, UserError

FORMAT = 1
PREFIX = "hf:"
_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


def hub_readers(
    name: str,
    *,
    text_key: str | Columns,
    config: str | None,
    streaming: bool,
    max_documents: int | None,
    cache: Path,
) -> dict[Split, Reader]:
    """The documents of each split that a dataset has of its own.

    Args:
        name: a name on the hub, or a local folder.
        text_key: the column of the text, or those of prompts and responses.
        config: the dataset's configuration, where it has several.
        streaming: read rows as they arrive instead of downloading the whole set first.
        max_documents: how many documents to take of each split at most.
        cache: the cache home.

    Returns:
        Readers under `train` (always) and `validation`, `test` (where the dataset has them).

    Raises:
        UserError: the extra is missing, the dataset cannot be found or reached, or lacks the column or split.
    """
    if not name:
        raise UserError(f"{PREFIX} names no dataset; write {PREFIX}NAME or {PREFIX}FOLDER")
    local = Path(name).expanduser()
    state = _folder_state(local) if local.is_dir() else None
    names = [text_key] if isinstance(text_key, str) else ["pairs", text_key.prompt, text_key.response]
    key = [FORMAT, name if state is None else state, config, *names, max_documents]
    digest = blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
    label = re.sub(r"[^A-Za-z0-9.-]+", "-", local.name if state else name).strip("-")[:60]
    folder = cache / "texts" / f"hf-{label}-{digest}"

    def gather(target: Path) -> None:
        for split, rows in load_splits(name, config=config, streaming=streaming).items():
            where = f"{name}, split {split}"
            if isinstance(text_key, str):
                texts = islice(_texts(rows, text_key=text_key, where=where), max_documents)
                write_documents(target / f"{split}.jsonl", texts)
            else:
                write_pairs(target / f"{split}.jsonl", islice(_pairs(rows, text_key, where=where), max_documents))

    cached_folder(folder, build=gather)
    paths: dict[Split, Path] = {split: folder / f"{split}.jsonl" for split in SPLITS}
    prompt_end = None if isinstance(text_key, str) else text_key.prompt_end
    return {split: _reader(path, prompt_end=prompt_end) for split, path in paths.items() if path.exists()}


def _reader(path: Path, *, prompt_end: str | None) -> Reader:
    """What was gathered: texts where `prompt_end` is None, else pairs."""
    if prompt_end is None:
        return FileReader(files=(path,), text_key="text", separator=None, max_documents=None)
    return PairReader((path,), replace(GATHERED, prompt_end=prompt_end), None)


def _folder_state(folder: Path) -> list[str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [f"{path.relative_to(folder).as_posix()} {file_hash(path)}" for path in files]


def load_splits(
    name: str, *, config: str | None, streaming: bool, revision: str | None = None
) -> dict[str, Iterable[Mapping[str, Any]]]:
    """The rows of each split of a dataset, under remask's names.

    Args:
        name: a name on the hub, or a local folder.
        config: the dataset's configuration, where it has several.
        streaming: whether rows are read as they arrive.
        revision: the commit of a dataset on the hub; None: the newest.

    Raises:
        UserError: the extra is missing, the dataset cannot be found or reached, or has no split to train on.
    """
    return _named_splits(own_splits(name, config=config, streaming=streaming, revision=revision), name=name)


def own_splits(
    name: str, *, config: str | None, streaming: bool, revision: str | None = None
) -> dict[str, Iterable[Mapping[str, Any]]]:
    """The rows of each split of a dataset, under the dataset's own names.

    Args and errors as for `load_splits`, but that any splits will do.
    """
    local = Path(name).expanduser()
    try:
        import datasets
    except ImportError:
        raise UserError("Hugging Face datasets need the extra `datasets`: pip install 'remask[datasets]'") from None
    if not local.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UserError(f"there is no dataset folder {name!r}; give a folder or a name on the hub")
    try:
        if (local / "dataset_dict.json").exists() or (local / "state.json").exists():
            loaded = datasets.load_from_disk(str(local))
        else:
            place = str(local) if local.is_dir() else name
            with _without_retry_lines():
                loaded = datasets.load_dataset(place, config, streaming=streaming, revision=revision)
    except Exception as error:  # the hub client, the parsers and the network each have exceptions of their own
        raise _unreachable(name, error) from None
    splits = cast("Mapping[Any, Any]", loaded if isinstance(loaded, dict) else {"train": loaded})
    return {str(split): rows for split, rows in splits.items()}


def newest_revision(name: str) -> str | None:
    """The commit that a dataset on the hub stands at; None for a local folder.

    Raises:
        UserError: the dataset cannot be found or reached.
    """
    if Path(name).expanduser().is_dir():
        return None
    import huggingface_hub

    try:
        with _without_retry_lines():
            return huggingface_hub.dataset_info(name).sha
    except Exception as error:  # as many kinds as the network has failures
        raise _unreachable(name, error) from None


def _unreachable(name: str, error: Exception) -> UserError:
    return UserError(
        f"cannot load the Hugging Face dataset {name!r}: {_first_line(error)}; check the name, its config and the "
        "network, or give a local folder"
    )


@contextmanager
def _without_retry_lines() -> Iterator[None]:
    """Keeps the hub client from a warning for each of its retries; what came of them is said in one line."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _named_splits(splits: dict[str, Any], *, name: str) -> dict[str, Any]:
    """A dataset's splits under remask's names; a dataset's only split is what to train on."""
    if len(splits) == 1:
        return {"train": next(iter(splits.values()))}
    found = {
        ours: splits[next(alias for alias in aliases if alias in splits)]
        for ours, aliases in _NAMES.items()
        if any(alias in splits for alias in aliases)
    }
    if "train" not in found:
        raise UserError(f"the dataset {name!r} has no split named train; it has {', '.join(splits)}")
    return found


def _texts(rows: Iterable[Mapping[str, Any]], *, text_key: str, where: str) -> Iterator[str]:
    """The texts of a split, blank ones left out."""
    for (text,) in cells(rows, (text_key,), where=where, options="data.text_key"):
        if text.strip():
            yield text


def _pairs(rows: Iterable[Mapping[str, Any]], columns: Columns, *, where: str) -> Iterator[Pair]:
    """The pairs of a split, those with a blank side left out; what ends a prompt is put there when they are read."""
    bare = replace(columns, prompt_end="")
    for prompt, response in cells(rows, (columns.prompt, columns.response), where=where, options=KEY_OPTIONS):
        if pair := bare.pair(prompt, response):
            yield pair


def cells(
    rows: Iterable[Mapping[str, Any]], keys: tuple[str, ...], *, where: str, options: str
) -> Iterator[tuple[str, ...]]:
    """The texts of each row in these columns.

    Args:
        rows: of a split.
        keys: the columns.
        where: names the split in messages.
        options: the recipe's keys that name the columns.

    Raises:
        UserError: a row lacks a column, or holds no text there.
        RunError: the rows cannot be read on.
    """
    try:
        for number, row in enumerate(rows):
            for key in keys:
                if key not in row:
                    raise UserError(f"{where}: no column {key!r}; {unknown_key(key, row, options=options)}")
            yield tuple(checked_text(row[key], f"{where}, row {number}, column {key!r}") for key in keys)
    except (UserError, GeneratorExit):
        raise
    except Exception as error:  # reading a stream fails in as many ways as loading it
        raise RunError(f"reading {where} failed: {_first_line(error)}; run again to start over") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
