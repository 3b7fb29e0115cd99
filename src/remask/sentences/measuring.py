"""A model on sentence tasks, with majority, TF-IDF, a bag of embeddings and a random encoder beside every figure.

Shape letters: n examples, C vectors of a sentence, D width.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from remask.config.build import build_model
from remask.config.schema import Recipe
from remask.continuation import SourceNetwork
from remask.errors import UserError
from remask.evaluation.measurement import DIFFERENCE, Examples, Measurement, identity_of
from remask.model import Model
from remask.networks.concepts import ConceptNetwork
from remask.networks.concepts.stretches import StretchDecoder
from remask.randomness import derive_seed
from remask.sentences.baselines import CHARACTERS, WORDS, all_positive, most_frequent, tfidf_cosines, tfidf_probe
from remask.sentences.encoders import (
    SentenceEncoder,
    Vectors,
    Wording,
    embedding_of,
    in_bfloat16,
    pooled,
    read_embeddings,
    reader_of,
)
from remask.sentences.features import COSINES, Whitening, cosines, with_cosines
from remask.sentences.finetuning import Pace, Subject, Tuning, fine_tuned
from remask.sentences.metrics import Metric, Numbers, Predictions, mean_score, metric_of, standard_error, unit_of
from remask.sentences.overlap_probe import clues, features
from remask.sentences.probes import Probed, probe
from remask.sentences.splits import TaskData, linked, parted
from remask.sentences.tasks import COMPARING, FROZEN, HEADS, TUNED, ZERO_SHOT
from remask.sentences.teaching import School

CONSTANT, POSITIVE, TFIDF, BAG, RANDOM = "majority", "all positive", "TF-IDF", "bag of embeddings", "random encoder"
_MEANS, _SLOTS = "means", "slots"
_OF_SEVERAL = ("slots", "slot_probe")
"""Heads that are the same as others where a sentence has one vector."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Who is judged, and who stands beside.

    Attributes:
        own: the model that is judged.
        bag: its embeddings alone.
        random: networks like it, each of other fresh weights, whose scores are averaged; none where it cannot be made.
        facts: what the protocol says of the model.
        precision: in which networks are read while they are fine-tuned: bf16 if they were trained so, else float32.
    """

    own: Subject
    bag: Subject
    random: Sequence[Subject]
    facts: Mapping[str, Any]
    precision: str = "float32"

    def tuned(self, subject: Subject, head: str) -> tuple[Subject, str]:
        """A subject as it is fine-tuned under a head, and the precision; `via_decoder` reads no vectors."""
        if head == "via_decoder" or self.precision == "float32":
            return subject, "float32"
        return replace(subject, read=in_bfloat16(subject.read)), self.precision

    @property
    def beside(self) -> Mapping[str, Sequence[Subject]]:
        """The subjects that stand beside, by name, each in one draw or several."""
        return {BAG: [self.bag]} | ({RANDOM: self.random} if self.random else {})

    def fitting(self, heads: Sequence[str], *, optional: Collection[str]) -> tuple[str, ...]:
        """The heads that this model can have.

        Args:
            heads: those that are wanted.
            optional: those of them that are left out where the model has nothing of their own for them.

        Raises:
            UserError: the model gives no vector at all, or has nothing for a head that is not optional.
        """
        several = _encoder(self.own).encode(["a"]).shape[1] > 1
        lacking = () if several else _OF_SEVERAL
        kept = tuple(head for head in heads if head not in lacking or head not in optional)
        decoder = getattr(self.own.network, "decoder", True)
        lost = decoder is None or isinstance(decoder, StretchDecoder)  # that reads rows of the text's own length alone
        if isinstance(self.own.network, SourceNetwork) and not lost:
            return kept
        if "via_decoder" in kept and "via_decoder" not in optional:
            name = type(self.own.network).__name__
            raise UserError(
                f"--head via_decoder: a {name} has no decoder that reads concepts of a text of any length. Leave it out"
            )
        return tuple(head for head in kept if head != "via_decoder")


def bench_of(model: Model, recipe: Recipe, *, draws: int = 1) -> Bench:
    """The model of a run and those that stand beside it.

    Args:
        model: the run's.
        recipe: the run's; random encoders are built of it, from the seeds after its own.
        draws: how many of them.

    Raises:
        UserError: the model has no vectors of sentences to give.
    """
    if recipe.network.kind == "concept_prior":
        raise UserError(
            f"recipe {recipe.name} draws concepts, and those of sentences are its codec's: give the run of its codec "
            f"({recipe.network.codec}) to remask evaluate"
        )
    read = reader_of(model.network)
    wording = Wording(tokenizer=model.tokenizer, length=model.length)
    own = Subject(network=model.network, read=read, wording=wording)
    bag = Subject(network=_table_alone(model), read=read_embeddings, wording=wording)
    facts = {
        "tokens_at_most": model.length,
        "weights": "moving average" if recipe.training.ema_decay else "last step",
    }
    precision = "bf16" if recipe.training.precision == "bf16" else "float32"
    if recipe.network.kind == "pretrained":  # its architecture comes with its weights
        facts |= {"random_encoder": "none of a pretrained model"}
        return Bench(own=own, bag=bag, random=(), facts=facts, precision=precision)
    random = [replace(own, network=_untrained(model, recipe, seed=recipe.seed + k)) for k in range(1, draws + 1)]
    return Bench(own=own, bag=bag, random=random, facts=facts | {"random_encoders": draws}, precision=precision)


def _untrained(model: Model, recipe: Recipe, *, seed: int) -> nn.Module:
    """A network like a run's, of another seed, that has learned nothing but how often tokens occur."""
    network = build_model(recipe.model_copy(update={"seed": seed}), model.tokenizer, device=model.device).network
    if isinstance(network, ConceptNetwork) and isinstance(model.network, ConceptNetwork):
        network.take_counts(model.network)
    return network


def _encoder(subject: Subject) -> SentenceEncoder:
    return SentenceEncoder(network=subject.network, read=subject.read, wording=subject.wording)


def _table_alone(model: Model) -> Any:
    """The model's table of embeddings without the rest, so that copies of it are small."""
    return embedding_of(model.network, least=model.tokenizer.vocab_size - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What one head predicts.

    Attributes:
        own: of the model.
        beside: of the others, by name.
        facts: what the protocol says of how settings were chosen.
    """

    own: Predictions
    beside: Mapping[str, Predictions]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskJudge:
    """One task for one model.

    Attributes:
        bench: the model and those beside it.
        data: the task's examples.
        tuning: of the fine-tuned heads.
        seed: of the part that settings are chosen on, and of the bootstrap.
        school: what the model learns before it is fine-tuned; None: nothing.
    """

    bench: Bench
    data: TaskData
    tuning: Tuning
    seed: int
    school: School | None = None
    _vectors: dict[tuple[int, str, str], list[Vectors]] = field(default_factory=dict)

    def measure(self, head: str) -> list[Measurement]:
        """The score of a head of `HEADS` that fits, and its distance from the best beside it, for each of the metrics.

        Raises:
            UserError: the model has nothing that the head could read, or all training sentences are empty.
            RunError: no learning rate gave a finite loss.
        """
        kind = HEADS[head]
        judged = (
            self._zero_shot(head) if kind == ZERO_SHOT else self._probed(head) if kind == FROZEN else self._tuned(head)
        )
        return [m for name in self.data.task.metrics for m in self._figures(head, name, judged)]

    @property
    def _chooser(self) -> Metric:
        """The metric that chooses between settings."""
        return metric_of(self.data.task.metrics[0], positive=self.data.positive)

    @cached_property
    def _groups(self) -> npt.NDArray[np.int64]:
        """Which of the reported examples belong together: those that shared sentences link."""
        return linked(self.data.reported)

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        return parted(self.data.train, seed=self.seed)

    def _encoded(self, subject: Subject, part: str, *, form: str = _MEANS) -> list[Vectors]:
        """The vectors of each column of `train` or `reported`, computed once; subjects are those of the bench.

        Of means [n 1 D] no slots [n C D] are kept, and of what stands beside none at all.
        """
        key = (id(subject), part, form)
        if key in self._vectors:
            return self._vectors[key]
        encoder = _encoder(subject)
        texts = {"train": self.data.train, "reported": self.data.reported}[part].texts
        encode = {_MEANS: encoder.means, _SLOTS: encoder.encode}[form]
        columns = [encode(column) for column in texts]
        if form == _MEANS or subject is self.bench.own:
            self._vectors[key] = columns
        return columns

    @staticmethod
    def _whitening(train: Sequence[Vectors]) -> Whitening:
        """Of the mean vectors of the training sentences, whose labels are not read."""
        return Whitening.fitted(np.concatenate([pooled(column) for column in train]))

    def _zero_shot(self, head: str) -> Judged:
        def predicted(subject: Subject) -> Numbers:
            columns = self._encoded(subject, "reported", form=_SLOTS if head == "slots" else _MEANS)
            if head == "whitened":
                whiten = self._whitening(self._encoded(subject, "train"))
                columns = [whiten(column) for column in columns]
            return cosines(*columns)

        words = {
            f"{TFIDF} words": [tfidf_cosines(self.data, WORDS)],
            f"{TFIDF} letters": [tfidf_cosines(self.data, CHARACTERS)],
        }
        facts: dict[str, Any] = {}
        if head == "whitened":
            facts["fitted_on"] = "training sentences, labels unused"
            if len(self.data.train) * self.data.task.sentences < len(self.data.sentences):
                facts["training_examples"] = len(self.data.train)
        return Judged(
            own=[predicted(self.bench.own)],
            beside=words | {name: [predicted(each) for each in draws] for name, draws in self.bench.beside.items()},
            facts=facts,
        )

    def _probed(self, head: str) -> Judged:
        """A bag's concepts are tokens apart from all others: its probe reads their mean, whatever the head."""
        probed = {"probe": self._probe, "slot_probe": self._slot_probe, "overlap_probe": self._overlap_probe}[head]
        own = probed(self.bench.own)
        readers = {BAG: self._probe if head == "overlap_probe" else probed, RANDOM: probed}
        others = {
            name: [readers[name](each).predictions for each in draws] for name, draws in self.bench.beside.items()
        }
        facts = {"strength": own.strength, **self._selection}
        return Judged(own=[own.predictions], beside=self._tfidf | others, facts=facts)

    def _probe(self, subject: Subject, *, form: str = _MEANS) -> Probed:
        train, reported = (self._encoded(subject, part, form=form) for part in ("train", "reported"))
        whiten = self._whitening(train)
        plain = COSINES if self.data.task.sentences == 2 else 0
        return self._fitted(with_cosines(train, whiten), with_cosines(reported, whiten), plain=plain)

    def _slot_probe(self, subject: Subject) -> Probed:
        return self._probe(subject, form=_SLOTS)

    def _overlap_probe(self, subject: Subject) -> Probed:
        train, reported = (clues(subject, examples.texts) for examples in (self.data.train, self.data.reported))
        return self._fitted(*features(train, reported))

    def _fitted(self, train: Any, reported: Any, *, plain: int = 0) -> Probed:
        """A linear probe on features of the training examples, and what it says of the reported ones."""
        return probe(
            train,
            self.data.train.labels,
            reported,
            parts=self._parts,
            metric=self._chooser,
            graded=self.data.task.graded,
            plain=plain,
        )

    def _tuned(self, head: str) -> Judged:
        tune = {"parts": self._parts, "metric": self._chooser, "tuning": self.tuning}
        school = self.school if head in COMPARING else None
        beside_tune = {**tune, "tuning": self._beside_tuning}
        own, precision = self.bench.tuned(self.bench.own, head)
        own = own if school is None else school.taught(own, head)
        found = fine_tuned([own], head, self.data, **tune)
        beside = self._tfidf | {BAG: self._bag_tuned}
        if self.bench.random:
            others = [self.bench.tuned(each, head)[0] for each in self.bench.random]
            beside[RANDOM] = fine_tuned(others, head, self.data, **beside_tune).predictions
        facts = {
            "learning_rates": list(self.tuning.rates),
            "learning_rate": found.pace.rate,
            "seeds": self.tuning.seeds,
            "epochs": self.tuning.epochs,
            **({} if precision == "float32" else {"precision": precision}),
            **self._shares(found.pace),
            **({} if school is None else school.facts),
            **self._selection,
        }
        return Judged(own=found.predictions, beside=beside, facts=facts)

    def _shares(self, pace: Pace) -> dict[str, Any]:
        """What the protocol says of a network that learns more slowly than its head."""
        if self.tuning.shares == (1.0,):
            return {}
        return {
            "network_shares": list(self.tuning.shares),
            "network_shares_beside": list(self._beside_tuning.shares),
            "network_share": pace.share,
        }

    @cached_property
    def _tfidf(self) -> dict[str, Predictions]:
        return {TFIDF: [tfidf_probe(self.data, parts=self._parts, metric=self._chooser).predictions]}

    @cached_property
    def _bag_tuned(self) -> Predictions:
        """A fine-tuned bag: of each sentence of a pair by itself, since in a joint bag they cannot be told apart."""
        head = "pair" if self.data.task.sentences == 2 else "pooled"
        tune = {"parts": self._parts, "metric": self._chooser, "tuning": self._beside_tuning}
        return fine_tuned([self.bench.bag], head, self.data, **tune).predictions

    @property
    def _beside_tuning(self) -> Tuning:
        """Of what stands beside: the whole rate is always among its choices, since it has little to keep."""
        return replace(self.tuning, shares=tuple(dict.fromkeys((*self.tuning.shares, 1.0))))

    @property
    def _selection(self) -> dict[str, Any]:
        return {
            "selection": (
                f"by {self.data.task.metrics[0]} on {len(self._parts[1])} of the training examples, which share no "
                "sentence with the others"
            ),
            "training_examples": len(self.data.train),
        }

    def _constants(self, name: str) -> dict[str, Predictions]:
        """What says the same of every example, beside a metric."""
        said: dict[str, Predictions] = {CONSTANT: [most_frequent(self.data)]}
        if name == "f1":
            said[POSITIVE] = [all_positive(self.data)]
        return said

    def _figures(self, head: str, name: str, judged: Judged) -> list[Measurement]:
        """A score, and its difference from the best of those beside it, paired over examples."""
        metric, labels = metric_of(name, positive=self.data.positive), self.data.reported.labels
        beside = self._constants(name) | dict(judged.beside)
        trivial = {who: mean_score(metric, each, labels) for who, each in beside.items()}
        best = max(trivial, key=lambda who: trivial[who])
        examples = self._right(judged.own) if name == "accuracy" else None
        error = {"groups": self._groups, "seed": derive_seed(self.seed, "bootstrap")}
        score = Measurement(
            name=f"{self.data.task.name}_{head}_{name}",
            value=mean_score(metric, judged.own, labels),
            unit=unit_of(name),
            n=len(labels),
            stderr=standard_error(metric, judged.own, labels, **error),
            trivial=trivial,
            protocol=self._protocol(head) | dict(judged.facts),
            examples=examples,
        )
        difference = replace(
            score,
            name=f"{score.name}{DIFFERENCE}",
            value=score.value - trivial[best],
            stderr=standard_error(metric, judged.own, labels, **error, against=beside[best]),
            trivial={"no difference": 0.0},
            protocol={**score.protocol, "against": best},
            examples=None,
        )
        return [score, difference]

    def _right(self, predictions: Predictions) -> Examples:
        """How many examples of each group are predicted right, the mean over trainings, and how many there are."""
        right = np.mean([each == self.data.reported.labels for each in predictions], axis=0)
        return Examples(
            identity=identity_of(self.data.identity, "groups that share a sentence"),
            values=np.bincount(self._groups, weights=right).tolist(),
            weights=np.bincount(self._groups).tolist(),
        )

    def _protocol(self, head: str) -> dict[str, Any]:
        data = self.data
        wording = self.bench.own.wording
        joined = HEADS[head] == TUNED and head not in COMPARING
        cut = (wording.too_long_together if joined else wording.too_long)(*data.reported.texts)
        return {
            "head": head,
            "training": HEADS[head],
            "split": data.split,
            "trained_on": data.trained_on,
            "overlapping_left_out": data.overlapping,
            "data": data.identity,
            "training_data": data.training_identity,
            "seed": self.seed,
            "sentences_cut": cut,
            "errors_over": f"{self._groups.max() + 1} groups of examples that share a sentence",
            **self.bench.facts,
        }
