"""How many questions a model answers right, beside answers without a network, and the difference of two models."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from remask.comparison import statistics
from remask.config.build.sources import build_sources
from remask.config.schema import Recipe
from remask.drawing import answers_prompts, sampling_protocol
from remask.errors import UserError
from remask.evaluation.answers import Answer, share_ended, share_right
from remask.evaluation.measurement import DIFFERENCE, Measurement
from remask.generation import check_length
from remask.model import Model
from remask.randomness import derive_seed
from remask.reasoning_tasks.exams import Exam
from remask.reasoning_tasks.responses import Response, Watch, Way, respond, token_counts
from remask.reasoning_tasks.wording import Wording, wording_of

GUESSES = 20
"""Random responses to each question, whose mean stands beside the model's."""


@dataclass(frozen=True, kw_only=True)
class Examinee:
    """A model that is asked.

    Attributes:
        model: the model.
        recipe: its own, with the sampling and the seed to draw with.
        ways: of giving a response, by name; the first is its usual one.
    """

    model: Model
    recipe: Recipe
    ways: Mapping[str, Way]

    @property
    def length(self) -> int:
        """Tokens of a sample, the prompt among them."""
        return check_length(self.recipe.sampling.length or self.recipe.data.length, self.model)

    @property
    def wording(self) -> Wording:
        """How it is asked."""
        return wording_of(self.recipe)

    def prompts(self, exam: Exam) -> list[str]:
        """Each question as it is put to the model.

        Raises:
            UserError: no question leaves a place for an answer, or one does not with the examples before it.
        """
        prompts = [self.wording.prompt(pair.prompt, exam.examples) for pair in exam.questions]
        sizes, length = token_counts(self.model, prompts), self.length
        long = sum(size >= length for size in sizes)
        if exam.examples and long:
            raise UserError(
                f"--shots {len(exam.examples)}: with so many examples {long} of {len(sizes)} questions of "
                f"{exam.task.name} leave no place for an answer (up to {max(sizes)} tokens, and a sample has "
                f"{length}): give fewer, or raise --length where the model's rows allow it"
            )
        if long == len(sizes):
            raise UserError(
                f"no question of {exam.task.name} leaves a place for an answer in a sample of {length} tokens; the "
                f"shortest has {min(sizes)}: train on longer rows, or raise --length"
            )
        return prompts


def measure(
    examinee: Examinee, exam: Exam, *, trained_on: int | None, watch: Callable[[str], Watch]
) -> dict[str, list[Measurement]]:
    """The shares of right answers, for each way of giving a response.

    Args:
        examinee: who is asked.
        exam: what.
        trained_on: how many of the questions its training text has, as `questions_trained_on` counts.
        watch: a way's name → who is told how far it has come.

    Returns:
        by way `accuracy_strict`, `accuracy_flexible`, `answers_equal` and `answers_ended`, from 0 to 1.

    Raises:
        UserError: as `Examinee.prompts`.
    """
    prompts, found = examinee.prompts(exam), {}
    for name, way in examinee.ways.items():
        seed, length = examinee.recipe.seed, examinee.length
        at_once = examinee.recipe.evaluation.batch_size
        drawn = respond(examinee.model, prompts, way, length=length, seed=seed, watch=watch(name), at_once=at_once)
        protocol = _protocol(examinee, exam, drawn) | {"answer": name, "questions_trained_on": trained_on}
        found[name] = figures(_answers(exam, drawn, examinee.wording), exam, protocol=protocol, seed=seed)
    return found


def figures(answers: Sequence[Answer], exam: Exam, *, protocol: Mapping[str, Any], seed: int) -> list[Measurement]:
    """What the answers to an exam come to.

    Args:
        answers: one for each question.
        exam: with what is right, and what answers without a network.
        protocol: what decides whether two figures compare.
        seed: of random guesses.
    """
    facts = {"protocol": protocol, "identity": exam.identity}
    rivals = _rivals(exam, seed=seed)
    return [
        share_right("accuracy_strict", answers, right=exam.task.strict, trivial=rivals, **facts),
        share_right("accuracy_flexible", answers, right=exam.task.flexible, trivial=rivals, **facts),
        share_right("answers_equal", answers, right=_equal, trivial={}, **facts),
        share_ended(answers, **facts),
    ]


def questions_trained_on(exam: Exam, recipe: Recipe, *, cache: Path) -> int | None:
    """How many questions stand as prompts in the training text of a recipe; None where that cannot be told."""
    if not answers_prompts(recipe) or recipe.data.prefix or recipe.data.streaming:
        return None
    try:
        sources = build_sources(recipe.data, cache=cache)
        paired = [corpus for corpus in (sources.main, *sources.others) if corpus.paired]
        trained = chain.from_iterable(corpus.pairs("train") for corpus in paired)
        asked = {_words(pair.prompt) for pair in exam.questions}
        behind = recipe.data.separator or ""
        seen = asked & {_words(pair.prompt.removesuffix(behind)) for pair in trained}
    except UserError:  # the text of training need not be there any more
        return None
    return sum(_words(pair.prompt) in seen for pair in exam.questions)


def unlike(own: Recipe, other: Recipe) -> str | None:
    """How the language models under two runs differ, in words; None where they are the same, or neither has one.

    Args:
        own: recipe of the first run.
        other: recipe of the second.
    """
    keys = ("name", "quantisation", "adaptation")
    pairs = {key: [getattr(recipe.network, key, None) for recipe in (own, other)] for key in keys}
    said = [
        f"network.{key}={ours or 'null'} against {theirs or 'null'}"
        for key, (ours, theirs) in pairs.items()
        if ours != theirs
    ]
    return ", ".join(said) or None


def differences(
    own: Iterable[Measurement], other: Sequence[Measurement], *, against: str, unlike: str | None = None
) -> list[Measurement]:
    """The accuracies of one run minus those of another, paired over questions.

    Args:
        own: figures of the first run, of all its ways.
        other: figures of the second, of its usual way.
        against: the id of the second run.
        unlike: what is said of the two beside the difference, as the function `unlike` says it.

    Raises:
        UserError: there are fewer than two questions.
    """
    named = {figure.name: figure for figure in other if figure.name.startswith("accuracy_")}
    facts = {"against": against, **({} if unlike is None else {"unlike": unlike})}
    return [_difference(figure, named[figure.name], facts=facts) for figure in own if figure.name in named]


def _difference(first: Measurement, second: Measurement, *, facts: Mapping[str, Any]) -> Measurement:
    assert first.examples is not None
    assert second.examples is not None
    samples = [statistics.sample_of(m.value, m.examples.to_json()) for m in (first, second) if m.examples is not None]
    if samples[0] is None or samples[1] is None:
        raise UserError("--against pairs the answers to at least two questions: raise --reasoning-limit")
    contrast = statistics.paired_over_examples(samples[0], samples[1])
    facts = {**facts, "accuracy": first.value, "accuracy_against": second.value}
    return Measurement(
        name=f"{first.name}{DIFFERENCE}",
        value=contrast.difference,
        unit="share",
        n=first.n,
        stderr=contrast.stderr,
        trivial={"no difference": 0.0},
        protocol={**first.protocol, **facts},
    )


def _answers(exam: Exam, drawn: Sequence[Response | None], wording: Wording) -> list[Answer]:
    answers = []
    for pair, response in zip(exam.questions, drawn, strict=True):
        text = None if response is None else wording.response(response.text, exam.examples)
        ended = response is not None and response.ended
        answers.append(Answer(prompt=pair.prompt, reference=pair.response, response=text, ended=ended))
    return answers


def _protocol(examinee: Examinee, exam: Exam, drawn: Sequence[Response | None]) -> dict[str, Any]:
    sampling = sampling_protocol(examinee.recipe, length=examinee.length)
    return {
        "split": exam.split,
        "shots": len(exam.examples),
        "wording": examinee.wording.name,
        "sample_length": sampling.pop("length"),
        **sampling,
        "prompts_too_long": sum(response is None for response in drawn),
        "data": exam.identity,
    }


def _rivals(exam: Exam, *, seed: int) -> dict[str, Callable[[Answer], Sequence[str]]]:
    """Responses without a network; each of the random ones is drawn once for all figures."""
    rivals: dict[str, Callable[[Answer], Sequence[str]]] = {}
    if (common := exam.common) is not None:
        rivals["majority answer"] = lambda answer: [common]
    for name, say in exam.task.rivals.items():
        draw = Random(derive_seed(seed, "reasoning", "rival", name))
        said = {pair.prompt: [say(pair.prompt, draw) for _ in range(GUESSES)] for pair in exam.questions}
        rivals[name] = lambda answer, said=said: said[answer.prompt]
    return rivals


def _words(question: str) -> str:
    return " ".join(question.casefold().split())


def _equal(prompt: str, response: str, reference: str) -> bool:
    del prompt
    return response.strip() == reference.strip()
