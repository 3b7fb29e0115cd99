"""The sentence tasks by name: their sentences, their labels, the files that hold them, and how they are scored.

GLUE (arXiv:1804.07461), STS-B (SemEval-2017 task 1, arXiv:1708.00055), PAWS (arXiv:1904.01130), SICK (LREC 2014).
"""

from collections.abc import Mapping
from dataclasses import dataclass

TRAIN, DEV, TEST = "train", "dev", "test"

SPLIT_FILES: Mapping[str, tuple[str, ...]] = {
    TRAIN: ("train", "dev_mismatched_one_annotator"),
    DEV: ("dev", "validation", "valid", "dev_matched", "validation_matched"),
    TEST: ("test", "test_matched"),
}
"""Split → names of the files that may hold it, the first that is there counts. One annotator's labels train alone."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "first": ("sentence1", "question1", "premise", "sentence", "sentence_A", "text1", "text", "#1 String"),
    "second": ("sentence2", "question2", "hypothesis", "sentence_B", "text2", "#2 String"),
    "class": ("label", "gold_label", "is_duplicate", "Quality"),
    "degree": ("score", "relatedness_score", "label"),
}
"""What a row holds → names that its column may have, the first that is there counts."""


@dataclass(frozen=True, kw_only=True)
class HubPlace:
    """Where a task lies among Hugging Face datasets.

    Attributes:
        dataset: its name.
        config: its configuration; None where it has one alone.
        revision: a branch or commit; None for the newest. A dataset that came with a script is read from the branch of
            the plain files that the hub made of it.
    """

    dataset: str
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class SentenceTask:
    """A task on single sentences or pairs of them.

    Attributes:
        name: of `remask evaluate --task`.
        folders: names that the folder of its files may have.
        sentences: 1 or 2 a row.
        metrics: what is reported; the first one chooses between settings.
        positive: the label that F1 counts; None where no F1 is reported.
        hub: its place among Hugging Face datasets.
    """

    name: str
    folders: tuple[str, ...]
    sentences: int
    metrics: tuple[str, ...]
    hub: HubPlace
    positive: str | None = None

    @property
    def graded(self) -> bool:
        """Whether labels are degrees rather than classes."""
        return self.metrics[0] == "spearman"

    @property
    def columns(self) -> tuple[str, ...]:
        """The keys of `COLUMNS` that a row must have."""
        return (*("first", "second")[: self.sentences], "degree" if self.graded else "class")


_ACCURACY, _WITH_F1, _CORRELATION = ("accuracy",), ("accuracy", "f1"), ("spearman", "pearson")
_PAWS = HubPlace(dataset="google-research-datasets/paws", config="labeled_final")
_SICK = HubPlace(dataset="RobZamp/sick", revision="refs/convert/parquet")


def _glue(config: str) -> HubPlace:
    return HubPlace(dataset="nyu-mll/glue", config=config)


def _pairs(name: str, hub: HubPlace, metrics: tuple[str, ...], *folders: str) -> SentenceTask:
    positive = "1" if "f1" in metrics else None
    return SentenceTask(name=name, folders=(name, *folders), sentences=2, metrics=metrics, hub=hub, positive=positive)


def _single(name: str, metrics: tuple[str, ...]) -> SentenceTask:
    return SentenceTask(name=name, folders=(name,), sentences=1, metrics=metrics, hub=_glue(name))


_TASKS = (
    _pairs("mrpc", _glue("mrpc"), _WITH_F1),
    _pairs("stsb", _glue("stsb"), _CORRELATION, "stsbenchmark"),
    _pairs("qqp", _glue("qqp"), _WITH_F1),
    _pairs("mnli", _glue("mnli"), _ACCURACY),
    _pairs("paws", _PAWS, _WITH_F1, "paws_wiki"),
    _single("sst2", _ACCURACY),
    _single("cola", ("matthews", "accuracy")),
    _pairs("rte", _glue("rte"), _ACCURACY),
    _pairs("sick", _SICK, _CORRELATION),
)
SENTENCE_TASKS: Mapping[str, SentenceTask] = {task.name: task for task in _TASKS}
LESSONS: Mapping[str, SentenceTask] = {
    **{task.name: task for task in _TASKS if task.sentences == 2},
    "snli": _pairs("snli", HubPlace(dataset="stanfordnlp/snli"), _ACCURACY),
}
"""Tasks on pairs whose training labels a network may be taught before it is fine-tuned on one task."""

ZERO_SHOT, FROZEN, TUNED = "zero-shot", "frozen", "fine-tuned"
HEADS: Mapping[str, str] = {
    "cosine": ZERO_SHOT,
    "whitened": ZERO_SHOT,
    "slots": ZERO_SHOT,
    "probe": FROZEN,
    "slot_probe": FROZEN,
    "overlap_probe": FROZEN,
    "cls": TUNED,
    "via_decoder": TUNED,
    "pooled": TUNED,
    "pair": TUNED,
    "match": TUNED,
    "overlap": TUNED,
    "named": TUNED,
}
"""Head → how much of the model and of the head is trained for it: nothing, the head, or both."""
USUAL_HEADS = ("cosine", "whitened", "probe")
COMPARING = frozenset({"pair", "match", "overlap", "named", "slot_probe", "overlap_probe"})
"""Heads that read both sentences of a pair by themselves, and compare them."""


def heads_for(task: SentenceTask, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the wanted heads that fit a task: cosines give degrees, and comparing takes two sentences."""
    fits = [head for head in wanted if task.graded or HEADS[head] != ZERO_SHOT]
    return tuple(head for head in fits if task.sentences == 2 or head not in COMPARING)
