"""The tasks of `remask evaluate`: which text, which references, which protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remask.config.build import build_sampler, build_text_for, sampling_steps
from remask.config.schema import Recipe
from remask.data.batch import Batch
from remask.data.corpora import Corpus
from remask.data.packing import PackedRows
from remask.data.store import TokenStore
from remask.errors import UserError
from remask.evaluation.likelihood import (
    evaluation_batches,
    likelihood_measurements,
    row_likelihoods,
    spread_indices,
)
from remask.evaluation.measurement import Measurement
from remask.evaluation.ngrams import symbols_text
from remask.evaluation.quality import corpus_words, quality_measurements
from remask.evaluation.trivial import TrivialPredictors, fit_trivial
from remask.generation import check_length, generate, repeat_prompt
from remask.model import Model
from remask.tokenizers import Encoding, Tokenizer

NGRAM_REFERENCES = {"byte 1-gram samples": 1, "byte 3-gram samples": 3}


@dataclass(frozen=True, kw_only=True)
class JudgedText:
    """Held-out text, and what trivial predictors make of it.

    Attributes:
        corpus: the documents.
        stores: the token caches by split.
        rows: the held-out split in rows.
        predictors: fitted on the training split.
    """

    corpus: Corpus
    stores: Mapping[str, TokenStore]
    rows: PackedRows
    predictors: TrivialPredictors


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
    if data_hash not in (None, text.corpus.fingerprint):
        raise UserError(f"the text of this run has changed since it was trained: {recipe.data.source}. Restore it")
    split = recipe.evaluation.split
    if split not in text.stores:
        valid = ", ".join(name for name in text.stores if name != "train")
        raise UserError(f"{recipe.data.source} has no {split} split. Valid: --split {valid}")
    return JudgedText(
        corpus=text.corpus,
        stores=text.stores,
        rows=PackedRows(text.stores[split], length=recipe.data.length),
        predictors=fit_trivial(text.stores["train"], model.tokenizer, cache=cache),
    )


def judge_likelihood(model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
    """The likelihood, or its bound, on held-out rows."""
    spec = recipe.evaluation
    batches = list(evaluation_batches(text.rows, limit=spec.rows))
    sums = row_likelihoods(model, batches, draws=spec.draws, seed=recipe.seed, end_share=text.predictors.end_share)
    exact = model.objective.exact
    protocol = {
        "likelihood": "exact" if exact else "upper bound: " + " + ".join(sums.terms),
        "split": spec.split,
        "rows": len(sums.nats),
        "row_length": recipe.data.length,
        "draws": 1 if exact else spec.draws,
        "seed": recipe.seed,
        "data": text.corpus.fingerprint,
        "weights": "moving average" if recipe.training.ema_decay else "last step",
        "ngram_training_bytes": text.predictors.fitted_bytes,
        "tokenizer": model.tokenizer.fingerprint,
        "lossless_tokenizer": model.tokenizer.lossless,
    }
    return likelihood_measurements(sums, trivial_nats=text.predictors.nats(batches), protocol=protocol)


def judge_quality(model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
    """What samples look like, beside held-out text and samples of byte n-gram models."""
    spec = recipe.sampling
    length = check_length(spec.length or recipe.data.length, model)
    prompt = repeat_prompt(None, model.tokenizer, count=spec.count, length=length, device=model.device)
    ids = generate(model, build_sampler(spec, model), prompt, seed=recipe.seed).cpu().numpy()
    texts = [model.tokenizer.decode(row) for row in ids]
    protocol = {
        "sampler": spec.sampler,
        "steps": sampling_steps(spec, length),
        "length": length,
        "temperature": spec.temperature,
        "top_p": spec.top_p,
        "seed": recipe.seed,
        "references": f"{recipe.evaluation.split} split",
    }
    return quality_measurements(
        ids,
        texts,
        references=_references(model, recipe, text, count=spec.count, length=length),
        train_ids=text.stores["train"].ids,
        vocabulary=corpus_words(text.corpus.documents("train")),
        protocol=protocol,
    )


def _references(
    model: Model, recipe: Recipe, text: JudgedText, *, count: int, length: int
) -> dict[str, tuple[list[Any], list[str]]]:
    """Held-out text and n-gram samples, as many and as long in tokens as the model's samples."""
    tokenizer = model.tokenizer
    rows = PackedRows(text.rows.store, length=length)
    held_out: Batch = rows.batch(spread_indices(max(len(rows) - 1, 1), count))
    references = {
        "held-out text": _decoded([row[keep] for row, keep in zip(held_out.ids, held_out.targets, strict=True)], model)
    }
    bytes_per_token = text.rows.store.text_bytes_total / len(text.rows.store)
    rng = np.random.default_rng(recipe.seed)
    for name, order in NGRAM_REFERENCES.items():
        size = round(length * bytes_per_token * 1.5)  # enough to fill a row in all likelihood; cut to it below
        drawn = text.predictors.ngrams.sample(order=order, length=size, count=count, rng=rng)
        ids = [_encodable(symbols_text(symbols), tokenizer).ids[:length] for symbols in drawn]
        references[name] = (ids, [tokenizer.decode(row) for row in ids])
    return references


def _encodable(text: str, tokenizer: Tokenizer) -> Encoding:
    """The tokens of a text, without the characters that the tokenizer does not know (bytes that make none)."""

    def known(character: str) -> bool:
        try:
            tokenizer.encode(character)
        except UserError:
            return False
        return True

    try:
        return tokenizer.encode(text)
    except UserError:
        kept = set(filter(known, set(text)))
        return tokenizer.encode("".join(character for character in text if character in kept))


def _decoded(rows: list[torch.Tensor], model: Model) -> tuple[list[Any], list[str]]:
    ids = [row.numpy() for row in rows]
    return ids, [model.tokenizer.decode(row) for row in ids]
