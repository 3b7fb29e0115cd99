"""Tasks that look at samples: their quality, their likelihood under a judge, and MAUVE.

A model of rows with a prefix goes on from held-out ones. Then what is judged is what it adds: a judge reads the prefix
and is asked about the rest, −log p(rest | prefix) = −log p(row) − (−log p(prefix)), and beside the samples stand the
true ends of the same rows and, as what a model gets that reads no prefix, the ends of other rows.

Shape letters: n samples, L tokens of a sample, P given ones before them, D width of a hidden state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from remask.config.build import build_sampler
from remask.config.schema import Recipe
from remask.data.batch import Batch
from remask.data.packing import PackedRows
from remask.data.windows import WindowRows
from remask.drawing import sampling_protocol
from remask.errors import UserError
from remask.evaluation.judged import Ids, Verdicts, behind, judged_measurements
from remask.evaluation.likelihood import spread_indices
from remask.evaluation.mauve import buckets_for, mauve_measurement
from remask.evaluation.measurement import Measurement
from remask.evaluation.ngrams import symbols_text
from remask.evaluation.quality import Figures, Texts, quality_measurements, sample_figures
from remask.generation import check_length, generate, pair_prompt
from remask.judgement.readers import Reader, States, encodable, reader_protocol
from remask.judgement.text import JudgedText
from remask.model import Model
from remask.samplers.base import Prompt, blank_prompt

HELD_OUT, OTHER = "held-out text", "other held-out text"
OTHER_ROWS = "ends of other rows"
"""What a model gets that draws held-out text, whatever it goes on from."""
NGRAM_REFERENCES = {"byte 1-gram samples": 1, "byte 3-gram samples": 3}
_FEWEST = 2
"""Texts on each side below which there are no histograms to compare."""


def check_samples(model: Model, recipe: Recipe, text: JudgedText) -> None:
    """Refuses a recipe whose samples are no text to judge.

    Raises:
        UserError: when the model answers prompts, ends its samples early, was trained on shorter rows, or there are no
            held-out rows to go on from.
    """
    if text.corpus.paired:
        raise UserError("this model answers prompts, and samples from nothing say little of it. Give --task answers")
    if recipe.sampling.stop:
        raise UserError(
            "sampling.stop=true fills samples with ends of text, and those are no text to judge. Give --no-stop"
        )
    judged_length(model, recipe)
    if recipe.data.prefix:
        _rows_to_go_on_from(recipe, text)


def _rows_to_go_on_from(recipe: Recipe, text: JudgedText) -> Batch:
    """Held-out rows without padding, spread evenly through the split, as many as samples where there are so many.

    Raises:
        UserError: there is none, or samples are to be of another length.
    """
    length = recipe.data.length
    if recipe.sampling.length not in (None, length):
        raise UserError(
            f"length {recipe.sampling.length} was asked for; samples go on from held-out rows of data.length={length} "
            "tokens. Leave --length out"
        )
    assert isinstance(text.rows, WindowRows), "rows with a prefix"
    whole = text.rows.whole
    if len(whole) < _FEWEST:
        raise UserError(
            f"the {recipe.evaluation.split} split has {len(whole)} rows of data.length={length} tokens, and samples go "
            f"on from {_FEWEST} at the least. Give --split, or --task likelihood"
        )
    return text.rows.batch(whole[spread_indices(len(whole), recipe.sampling.count)])


def draw_for_judging(model: Model, recipe: Recipe, bench: "Yardstick") -> npt.NDArray[np.int64]:
    """The samples that a yardstick is for, given tokens and all [n P+L]."""
    sampler = build_sampler(recipe.sampling, model, seed=recipe.seed)
    at_once = recipe.evaluation.batch_size
    return generate(model, sampler, bench.prompt, seed=recipe.seed, at_once=at_once).cpu().numpy()


def open_yardstick(
    model: Model, recipe: Recipe, text: JudgedText, *, judge: Reader | None, features: Reader | None
) -> "Yardstick":
    """What the samples of a recipe are held against.

    Args:
        model: the run's.
        recipe: how many samples, and how long.
        text: held-out text.
        judge: for `judged`.
        features: for `mauve`.

    Raises:
        UserError: as `check_samples`, or for features where samples go on from rows.
    """
    check_samples(model, recipe, text)
    length, rows = judged_length(model, recipe), None
    if recipe.data.prefix:
        length, rows = length - recipe.data.prefix, _rows_to_go_on_from(recipe, text)
        if features is not None:
            raise UserError("MAUVE compares samples from nothing, and this model goes on from given tokens")
    return Yardstick(
        model=model,
        recipe=recipe,
        text=text,
        count=recipe.sampling.count if rows is None else len(rows),
        length=length,
        rows=rows,
        judge=judge,
        features=features,
    )


def judged_length(model: Model, recipe: Recipe) -> int:
    """L, tokens of a sample.

    Raises:
        UserError: when the model was trained on shorter rows.
    """
    return check_length(recipe.sampling.length or recipe.data.length, model)


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardstick:
    """What samples are held against: held-out text and n-gram samples, whose figures are worked out once.

    Attributes:
        model: its tokenizer is that of all samples.
        recipe: the held-out split, and the seed of the n-gram samples.
        text: held-out text, and the n-gram models.
        count: n, samples of each kind, at least 1.
        length: L, tokens of a sample.
        rows: held-out rows whose first P tokens the samples go on from [n P+L]; None: they start from nothing.
        judge: says how likely samples are; needed for `judged` alone.
        features: whose hidden states stand for texts; needed for `mauve` alone.
    """

    model: Model
    recipe: Recipe
    text: JudgedText
    count: int
    length: int
    rows: Batch | None = None
    judge: Reader | None = None
    features: Reader | None = None

    @property
    def prompt(self) -> Prompt:
        """What the samples go on from, on the model's device."""
        device = self.model.device
        if self.rows is None:
            return blank_prompt(self.count, self.length, device=device)
        return pair_prompt(self.rows, device=device)

    def all(self, ids: npt.NDArray[np.int64], recipe: Recipe) -> list[Measurement]:
        """Every figure that there are models for; args and errors as for each."""
        tasks = [self.quality, *([self.judged] if self.judge else []), *([self.mauve] if self.features else [])]
        return [figure for task in tasks for figure in task(ids, recipe)]

    def quality(self, ids: npt.NDArray[np.int64], recipe: Recipe) -> list[Measurement]:
        """What samples look like; see `remask.evaluation.quality`.

        Args:
            ids: the samples, given tokens and all [n P+L].
            recipe: says how these samples were drawn.
        """
        own = self._own(ids)
        return quality_measurements(
            self._figures({"samples": self._decoded(own)})["samples"],
            references=self._reference_figures,
            protocol=self._protocol(own, recipe),
        )

    def judged(self, ids: npt.NDArray[np.int64], recipe: Recipe) -> list[Measurement]:
        """What the judge makes of samples; see `remask.evaluation.judged`. Args as for `quality`.

        Raises:
            UserError: the judge's tokenizer lacks a character of a sample.
            ValueError: there is no judge.
        """
        judge = _given(self.judge, "judge")
        anew = judge.facts["tokenizer"] != self.model.tokenizer.fingerprint
        own = self._own(ids)
        return judged_measurements(
            self._verdicts(list(own)),
            references=self._reference_verdicts,
            protocol=self._protocol(own, recipe) | reader_protocol("judge", judge) | {"tokenized_anew": anew},
        )

    def mauve(self, ids: npt.NDArray[np.int64], recipe: Recipe) -> list[Measurement]:
        """MAUVE of samples against held-out text; see `remask.evaluation.mauve`. Args as for `quality`.

        Held-out text is cut in two halves, row by row: one that all else is held against, and one beside the samples.
        Where it has fewer rows than two for each sample, so many samples fewer are looked at.

        Raises:
            UserError: there is too little held-out text, mauve-text is not installed, or the tokenizer of the
                features lacks a character.
            ValueError: there are no features.
        """
        reader = _given(self.features, "features")
        states = dict(self._reference_states)
        text = states.pop(HELD_OUT)
        n = min(len(ids), len(text))
        return [
            mauve_measurement(
                reader.states(list(ids[:n]), self.model.tokenizer),
                text[:n],
                others={name: of[:n] for name, of in states.items()},
                buckets=buckets_for(n),
                protocol=self._protocol(ids, recipe)
                | reader_protocol("features", reader)
                | {"features_state": reader.state},
            )
        ]

    def _protocol(self, ids: npt.NDArray[np.int64], recipe: Recipe) -> dict[str, Any]:
        given = {} if self.rows is None else {"given": self.recipe.data.prefix}
        return {
            **sampling_protocol(recipe, length=ids.shape[1]),
            **given,
            "references": f"{self.recipe.evaluation.split} split",
            "data": self.text.corpus.fingerprint,
        }

    def _own(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Samples without the tokens that were given [n L]."""
        return ids[:, ids.shape[1] - self.length :]

    def _verdicts(self, samples: Sequence[Ids]) -> Verdicts:
        """What the judge makes of texts, each behind the given tokens of its row where there are some."""
        judge, tokenizer = _given(self.judge, "judge"), self.model.tokenizer
        if self.rows is None:
            return judge.verdicts(samples, tokenizer)
        rows = [np.concatenate(pair) for pair in zip(self._prefixes, samples, strict=True)]
        return behind(judge.verdicts(rows, tokenizer), self._prefix_verdicts, samples)

    @cached_property
    def _prefixes(self) -> list[Ids]:
        assert self.rows is not None, "asked for where there are rows"
        return list(self.rows.ids[:, : -self.length].numpy())

    @cached_property
    def _prefix_verdicts(self) -> Verdicts:
        return _given(self.judge, "judge").verdicts(self._prefixes, self.model.tokenizer)

    # ── what stands beside samples ──────────────────────────────────────────────────────────────────────────────

    @cached_property
    def references(self) -> dict[str, Texts]:
        """Held-out text and n-gram samples, as many and as long in tokens as the model's samples."""
        held_out = self._held_out(self.count)
        return {HELD_OUT: self._decoded(held_out), **self._ngram_samples}

    @cached_property
    def _ngram_samples(self) -> dict[str, Texts]:
        """Made of what the model's tokenizer and every reader can read."""
        tokenizer = self.model.tokenizer
        readable = [reader.readable for reader in (self.judge, self.features) if reader is not None]
        store = self.text.rows.store
        size = round(
            self.length * store.text_bytes_total / len(store) * 1.5
        )  # fills a row in all likelihood; cut below
        rng = np.random.default_rng(self.recipe.seed)
        samples = {}
        for name, order in NGRAM_REFERENCES.items():
            drawn = self.text.predictors.ngrams.sample(order=order, length=size, count=self.count, rng=rng)
            texts = [symbols_text(symbols) for symbols in drawn]
            for read in (*readable, partial(encodable, tokenizer=tokenizer)):
                texts = [read(each) for each in texts]
            samples[name] = self._decoded([tokenizer.encode(each).ids[: self.length] for each in texts])
        return samples

    def _held_out(self, count: int) -> list[Ids]:
        """Rows spread evenly through the held-out split; the last, which may be short, is taken only if it is alone.

        Where samples go on from rows, the true ends of these.
        """
        if self.rows is not None:
            return list(self.rows.ids[:, -self.length :].numpy())
        rows = PackedRows(self.text.rows.store, length=self.length)
        batch = rows.batch(spread_indices(max(len(rows) - 1, 1), count))
        return [row[keep].numpy() for row, keep in zip(batch.ids, batch.targets, strict=True)]

    def _decoded(self, samples: Sequence[Ids] | npt.NDArray[np.int64]) -> Texts:
        return samples, [self.model.tokenizer.decode(row) for row in samples]

    def _figures(self, sets: Mapping[str, Texts]) -> dict[str, Figures]:
        return sample_figures(sets, train_ids=self.text.stores["train"].ids, vocabulary=self._words)

    @cached_property
    def _words(self) -> set[str]:
        return self.text.training_words()

    @cached_property
    def _reference_figures(self) -> dict[str, Figures]:
        return self._figures(self.references)

    @cached_property
    def _reference_verdicts(self) -> dict[str, Verdicts]:
        texts = {name: list(ids) for name, (ids, _) in self.references.items()}
        if self.rows is not None:
            true = texts[HELD_OUT]
            texts[OTHER_ROWS] = true[len(true) // 2 :] + true[: len(true) // 2]
        return {name: self._verdicts(ids) for name, ids in texts.items()}

    @cached_property
    def _reference_states(self) -> dict[str, States]:
        reader = _given(self.features, "features")
        held_out = self._held_out(2 * self.count)
        if len(held_out) < 2 * _FEWEST:
            raise UserError(
                f"MAUVE needs {2 * _FEWEST} rows of held-out text at the least, and the "
                f"{self.recipe.evaluation.split} split has {len(held_out)} of {self.length} tokens. Give --split or a "
                "smaller --length"
            )
        n = len(held_out) // 2
        sets = {HELD_OUT: held_out[0 : 2 * n : 2], OTHER: held_out[1 : 2 * n : 2]}
        sets |= {name: list(ids) for name, (ids, _) in self._ngram_samples.items()}
        return {name: reader.states(ids, self.model.tokenizer) for name, ids in sets.items()}


def _given(reader: Reader | None, role: str) -> Reader:
    if reader is None:
        raise ValueError(f"a yardstick without {role} cannot say this")
    return reader
