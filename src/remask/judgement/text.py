"""The held-out text that a run is judged on, and what predictors without a network make of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from remask.config.build import build_rows, build_text_for
from remask.config.schema import Recipe
from remask.data.cache import cached_folder
from remask.data.corpora import Corpus
from remask.data.packing import Rows
from remask.data.store import TokenStore
from remask.errors import UserError
from remask.evaluation.measurement import identity_of
from remask.evaluation.quality import corpus_words
from remask.evaluation.trivial import TrivialPredictors, fit_trivial
from remask.model import Model

_WORDS = "words.txt"


@dataclass(frozen=True, kw_only=True)
class JudgedText:
    """Held-out text, and what trivial predictors make of it.

    Attributes:
        corpus: the documents.
        stores: the token caches by split.
        rows: the held-out split in rows.
        predictors: fitted on the training split.
        cache: the cache home.
    """

    corpus: Corpus
    stores: Mapping[str, TokenStore]
    rows: Rows
    predictors: TrivialPredictors
    cache: Path

    def training_words(self) -> set[str]:
        """The distinct words of the training text, from the cache or collected now.

        Raises:
            UserError: the cache cannot be written.
            RunError: the disk is full.
        """

        def collect(folder: Path) -> None:
            words = corpus_words(self.corpus.documents("train"))
            (folder / _WORDS).write_text("\n".join(sorted(words)), encoding="ascii")

        store = self.stores["train"]  # its name holds the text's contents and splits
        folder = cached_folder(self.cache / "words" / store.fingerprint, build=collect)
        return set((folder / _WORDS).read_text(encoding="ascii").split())


def open_judged_text(model: Model, recipe: Recipe, *, cache: Path, data_hash: str | None) -> JudgedText:
    """Opens a run's text again with the tokenizer that was saved with its model.

    Args:
        model: the run's.
        recipe: the run's, with the split to judge on.
        cache: the cache home.
        data_hash: the text's fingerprint when the run began.

    Raises:
        UserError: when the text is gone, has changed, or has no such split.
    """
    text = build_text_for(recipe, model.tokenizer, cache=cache)
    if data_hash not in (None, text.fingerprint):
        raise UserError(f"the text of this run has changed since it was trained: {recipe.data.source}. Restore it")
    split = recipe.evaluation.split
    if split not in text.stores:
        valid = ", ".join(name for name in text.stores if name != "train")
        raise UserError(f"{recipe.data.source} has no {split} split. Valid: --split {valid}")
    return JudgedText(
        corpus=text.corpus,
        stores=text.stores,
        rows=build_rows(recipe.data, text.stores[split]),
        predictors=fit_trivial(text.stores["train"], model.tokenizer, cache=cache),
        cache=cache,
    )


def rows_identity(model: Model, recipe: Recipe, text: JudgedText, chosen: npt.NDArray[np.int64]) -> str:
    """Which held-out rows these are: the same for every model that reads them in the same tokens, in the same order.

    Args:
        model: its tokenizer alone counts.
        recipe: the split, and how rows are cut and filled up.
        text: the rows.
        chosen: their numbers, in order.
    """
    # how ends of documents are dealt with: by the packing of plain text, or by what fills up the rows of pairs
    ends = _cutting(recipe, text)
    facts = [text.corpus.fingerprint, recipe.evaluation.split, text.rows.length, model.tokenizer.fingerprint, ends]
    return identity_of("rows", *facts, chosen.tolist())


def _cutting(recipe: Recipe, text: JudgedText) -> list[object]:
    data = recipe.data
    if text.corpus.paired:
        return ["pairs", data.pad, text.rows.left_out]
    return ["packed"] if data.prefix is None else ["windows", data.prefix, data.stride or data.length]


def rows_protocol(model: Model, recipe: Recipe, text: JudgedText) -> dict[str, object]:
    """What decides whether two figures of held-out rows compare, whatever is measured on them."""
    protocol: dict[str, object] = {
        "split": recipe.evaluation.split,
        "row_length": recipe.data.length,
        "seed": recipe.seed,
        "data": text.corpus.fingerprint,
        "weights": "moving average" if recipe.training.ema_decay else "last step",
        "tokenizer": model.tokenizer.fingerprint,
        "lossless_tokenizer": model.tokenizer.lossless,
    }
    if text.corpus.paired:
        protocol |= {"targets": "responses", "padding": recipe.data.pad, "pairs_left_out": text.rows.left_out}
    elif recipe.data.prefix is not None:
        windows = {"stride": recipe.data.stride or recipe.data.length, "documents_left_out": text.rows.left_out}
        protocol |= {"targets": "windows of documents", "given": recipe.data.prefix, **windows}
    return protocol
