"""The tasks of `remask evaluate`: which text, which references, which protocol."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from remask.config.build import build_rows, build_sampler, build_text_for
from remask.config.build.answers import build_judging
from remask.config.schema import Recipe
from remask.data.batch import Batch
from remask.data.corpora import Corpus
from remask.data.documents import Pair
from remask.data.packing import PackedRows, Rows
from remask.data.store import TokenStore
from remask.drawing import sampling_protocol
from remask.errors import UserError
from remask.evaluation.answers import Answer, answer_measurements, most_common_response
from remask.evaluation.judged import Verdicts, judged, judged_measurements, passage
from remask.evaluation.likelihood import (
    evaluation_batches,
    likelihood_measurements,
    row_likelihoods,
    spread_indices,
)
from remask.evaluation.measurement import Measurement, identity_of
from remask.evaluation.ngrams import symbols_text
from remask.evaluation.quality import corpus_words, quality_measurements
from remask.evaluation.trivial import TrivialPredictors, fit_trivial
from remask.generation import check_length, ended_at, generate
from remask.model import Model
from remask.randomness import derive_seed
from remask.samplers.base import Prompt, blank_prompt
from remask.tokenizers import Tokenizer

GUESSES = 20
"""Random answers to each prompt, whose mean stands beside the model's."""
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
    rows: Rows
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
    )


def judge_likelihood(model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
    """The likelihood, or its bound, on held-out rows."""
    spec = recipe.evaluation
    batches = list(evaluation_batches(text.rows, limit=spec.rows))
    end_share = text.predictors.end_share if text.rows.shows_ends else None
    sums = row_likelihoods(model, batches, draws=spec.draws, seed=recipe.seed, end_share=end_share)
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
    if text.corpus.paired:
        protocol |= {"targets": "responses", "padding": recipe.data.pad, "pairs_left_out": text.rows.left_out}
    chosen = spread_indices(len(text.rows), spec.rows)
    return likelihood_measurements(
        sums,
        trivial_nats=text.predictors.nats(batches),
        protocol=protocol,
        identity=rows_identity(model, recipe, text, chosen),
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
    ends = ["pairs", recipe.data.pad, text.rows.left_out] if text.corpus.paired else ["packed"]
    facts = [text.corpus.fingerprint, recipe.evaluation.split, text.rows.length, model.tokenizer.fingerprint, ends]
    return identity_of("rows", *facts, chosen.tolist())


def judge_quality(model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
    """What samples look like, beside held-out text and samples of byte n-gram models.

    Raises:
        UserError: when the model answers prompts.
    """
    ids = _drawn_from_nothing(model, recipe, text)
    length = ids.shape[1]
    return quality_measurements(
        ids,
        [model.tokenizer.decode(row) for row in ids],
        references=_references(model, recipe, text, count=len(ids), length=length),
        train_ids=text.stores["train"].ids,
        vocabulary=corpus_words(text.corpus.documents("train")),
        protocol=sampling_protocol(recipe, length=length) | {"references": f"{recipe.evaluation.split} split"},
    )


def judge_samples(model: Model, recipe: Recipe, text: JudgedText, *, judge: Model, judge_id: str) -> list[Measurement]:
    """What an exact model makes of samples, of held-out text and of n-gram samples.

    Args:
        model: draws the samples.
        recipe: says how.
        text: held-out text, and the n-gram models.
        judge: an autoregressive model.
        judge_id: its run.

    Raises:
        UserError: when the judge's likelihood is a bound, or its tokenizer lacks a character of a sample, or the
            model answers prompts.
    """
    if not judge.objective.exact:
        raise UserError(f"--judge {judge_id}: its likelihood is a bound. Give an autoregressive run, e.g. of recipe ar")
    ids = _drawn_from_nothing(model, recipe, text)
    length = ids.shape[1]

    def figures(rows: Iterable[Any]) -> Verdicts:
        passages = [passage(row, model.tokenizer, judge=judge.tokenizer) for row in rows]
        return judged(judge, passages, length=judge.length, eos_id=judge.tokenizer.eos_id)

    references = _references(model, recipe, text, count=len(ids), length=length, reader=judge.tokenizer)
    return judged_measurements(
        figures(ids),
        references={name: figures(rows) for name, (rows, _) in references.items()},
        protocol={
            **sampling_protocol(recipe, length=length),
            "references": f"{recipe.evaluation.split} split",
            "judge": judge_id,
            "judge_tokenizer": judge.tokenizer.fingerprint,
            "judge_row": judge.length,
            "tokenized_anew": model.tokenizer.fingerprint != judge.tokenizer.fingerprint,
        },
    )


def judge_answers(model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
    """How many prompts of held-out pairs are answered right.

    Raises:
        UserError: when the text holds no pairs, or no prompt leaves a place for a response.
    """
    pairs = list(text.corpus.pairs(recipe.evaluation.split))
    chosen = spread_indices(len(pairs), recipe.sampling.count)
    length = check_length(recipe.sampling.length or recipe.data.length, model)
    answers = _answers(model, recipe, text.rows.store, [(int(k), pairs[k]) for k in chosen], length=length)
    judging = build_judging(recipe)
    common = most_common_response(pair.response for pair in text.corpus.pairs("train"))
    trivial: dict[str, Callable[[Answer], Sequence[str]]] = {"most common response": lambda answer: [common]}
    if (guess := judging.guess) is not None:
        draw = Random(derive_seed(recipe.seed, "guess"))
        guesses = {answer.prompt: [guess(answer.prompt, draw) for _ in range(GUESSES)] for answer in answers}
        trivial["random guess"] = lambda answer: guesses[answer.prompt]
    protocol = {
        "split": recipe.evaluation.split,
        "checker": judging.name,
        **sampling_protocol(recipe, length=length),
        "prompts_too_long": sum(answer.response is None for answer in answers),
        "data": text.corpus.fingerprint,
    }
    return answer_measurements(answers, right=judging.right, trivial=trivial, protocol=protocol)


def _answers(
    model: Model, recipe: Recipe, store: TokenStore, pairs: Sequence[tuple[int, Pair]], *, length: int
) -> list[Answer]:
    """A response drawn to each prompt that leaves a place for one; prompts of all lengths share a batch."""
    assert store.prompt_lengths is not None, "the corpus holds pairs"
    sizes = [int(store.prompt_lengths[k]) for k, _ in pairs]
    able = [place for place, size in enumerate(sizes) if size < length]
    if not able:
        raise UserError(f"no prompt is shorter than a sample of {length} tokens: raise --length or data.length")
    ids = torch.full((len(able), length), model.mask_id)
    fixed = torch.zeros_like(ids, dtype=torch.bool)
    for row, place in enumerate(able):
        start, size = int(store.document_offsets[pairs[place][0]]), sizes[place]
        ids[row, :size] = torch.from_numpy(store.ids[start : start + size].astype(np.int64))
        fixed[row, :size] = True
    prompt = Prompt(ids=ids.to(model.device), fixed=fixed.to(model.device))
    drawn = generate(model, build_sampler(recipe.sampling, model), prompt, seed=recipe.seed).tolist()
    behind = recipe.data.separator or ""  # a checker is asked about the prompt as the source has it
    prompts = [pair.prompt.removesuffix(behind) for _, pair in pairs]
    empty = partial(Answer, response=None, ended=False)
    answers = [empty(prompt=asked, reference=p.response) for asked, (_, p) in zip(prompts, pairs, strict=True)]
    for place, row, given in zip(able, drawn, fixed.tolist(), strict=True):
        end = ended_at(row, given, eos_id=model.tokenizer.eos_id)
        response = model.tokenizer.decode(row[sizes[place] : end])
        answers[place] = replace(answers[place], response=response, ended=end is not None)
    return answers


def _drawn_from_nothing(model: Model, recipe: Recipe, text: JudgedText) -> npt.NDArray[np.int64]:
    """The recipe's number of samples without a prompt, [n L]."""
    if text.corpus.paired:
        raise UserError("this model answers prompts, and samples from nothing say little of it. Give --task answers")
    if recipe.sampling.stop:
        raise UserError(
            "sampling.stop=true fills samples with ends of text, and those are no text to judge. Give --no-stop"
        )
    length = check_length(recipe.sampling.length or recipe.data.length, model)
    prompt = blank_prompt(recipe.sampling.count, length, device=model.device)
    return generate(model, build_sampler(recipe.sampling, model), prompt, seed=recipe.seed).cpu().numpy()


def _references(
    model: Model, recipe: Recipe, text: JudgedText, *, count: int, length: int, reader: Tokenizer | None = None
) -> dict[str, tuple[list[Any], list[str]]]:
    """Held-out text and n-gram samples, as many and as long in tokens as the model's samples.

    N-gram samples are made of what both the model's tokenizer and `reader`, where given, can read.
    """
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
        texts = [symbols_text(symbols) for symbols in drawn]
        if reader is not None:
            texts = [_encodable(each, reader) for each in texts]
        ids = [tokenizer.encode(_encodable(each, tokenizer)).ids[:length] for each in texts]
        references[name] = (ids, [tokenizer.decode(row) for row in ids])
    return references


def _encodable(text: str, tokenizer: Tokenizer) -> str:
    """A text without the characters that the tokenizer does not know (bytes that make none)."""

    def known(character: str) -> bool:
        try:
            tokenizer.encode(character)
        except UserError:
            return False
        return True

    kept = set(filter(known, set(text)))
    return "".join(character for character in text if character in kept)


def _decoded(rows: list[torch.Tensor], model: Model) -> tuple[list[Any], list[str]]:
    ids = [row.numpy() for row in rows]
    return ids, [model.tokenizer.decode(row) for row in ids]
