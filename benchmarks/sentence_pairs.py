"""Pairs of sentences that mean the same, and plain sentences, from the training files of sentence tasks.

For `concept-sentences`, `concept-stretches`, `concept-context` and `concept-company`.

Out of a folder as `remask evaluate --sentences FOLDER` reads it: the positive pairs of each task's training split (of
STS-B and SICK those of a degree of at least 4), the entailments of snli/dev.tsv and the pairs of
qqp_paraphrase/valid.tsv where they are there. Every pair that stands in a split which is not trained on (dev, test;
dev is trained on where there is no train, as `evaluate` does) is left out, whatever its order, case and punctuation,
and a pair that stands in several sources is given once. The two sides are given in a random order. With --neighbours,
N pairs of neighbouring sentences of a plain text file (one paragraph a line) come on top.

Written are OUT/train.jsonl and OUT/valid.jsonl (500 of the pairs), {"a": …, "b": …} a line; and OUT/sentences.jsonl,
{"text": …} a line: every sentence of those training splits and of snli/dev.tsv, once, whatever its label says, but for
those that stand in a split of these tasks which is not trained on. Counts are printed.

Run: .venv/bin/python benchmarks/sentence_pairs.py FOLDER OUT [--neighbours FILE --count N] [--words 40] [--seed 0]
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remask.data.readers import text_lines
from remask.errors import UserError
from remask.sentences.splits import degree_of, folder_splits, wording_of
from remask.sentences.tables import column_names, labelled, tsv_rows
from remask.sentences.tasks import DEV, LESSONS, SENTENCE_TASKS, TRAIN, SentenceTask

SAME_FROM = 4.0
"""The degree from which a pair of STS-B or SICK counts as the same."""
POSITIVE = frozenset({"1", "entailment"})
VALIDATION = 500
_SENTENCE = re.compile(r'(?<=[.!?]) (?=[A-Z"])')

Pair = tuple[str, str]


def positive(task: SentenceTask, label: str) -> bool:
    """Whether a label says that both sentences mean the same, or that one follows from the other.

    Raises:
        UserError: a degree is no number.
    """
    return degree_of(label, where=task.name) >= SAME_FROM if task.graded else label in POSITIVE


def task_pairs(folder: Path) -> tuple[dict[str, list[Pair]], set[tuple[str, ...]]]:
    """The positive training pairs of each task that the folder holds, and the keys of all pairs of the other splits."""
    found: dict[str, list[Pair]] = {}
    held: set[tuple[str, ...]] = set()
    for task in SENTENCE_TASKS.values():
        if task.sentences == 1 or not any((folder / name).is_dir() for name in task.folders):
            continue
        splits = folder_splits(folder, task)
        trained = TRAIN if TRAIN in splits else DEV
        for split, (_, rows) in splits.items():
            if split == trained:
                found[task.name] = [(a, b) for (a, b), label in rows if positive(task, label)]
            else:
                held.update(wording_of((a, b)) for (a, b), _ in rows)
    return found, held


def plain_sentences(folder: Path) -> list[str]:
    """The sentences of all training pairs, positive or not, that stand in no other split; each once."""
    found: dict[tuple[str, ...], str] = {}
    held: set[tuple[str, ...]] = set()
    for task in SENTENCE_TASKS.values():
        if task.sentences == 1 or not any((folder / name).is_dir() for name in task.folders):
            continue
        splits = folder_splits(folder, task)
        for split, (_, rows) in splits.items():
            sentences = [sentence for pair, _ in rows for sentence in pair]
            if split == (TRAIN if TRAIN in splits else DEV):
                found |= {wording_of([sentence]): sentence for sentence in sentences}
            else:
                held.update(wording_of([sentence]) for sentence in sentences)
    snli = folder / "snli" / "dev.tsv"
    if snli.is_file():
        for where, row in tsv_rows(snli):
            *sides, _ = column_names(row, LESSONS["snli"], where=where)
            found |= {wording_of([row[side]]): row[side] for side in sides}
    return [sentence for words, sentence in found.items() if any(words) and words not in held]


def other_pairs(folder: Path) -> dict[str, list[Pair]]:
    """Entailments of SNLI's dev file and paraphrases of Quora questions, where they are there."""
    found: dict[str, list[Pair]] = {}
    snli, quora = folder / "snli" / "dev.tsv", folder / "qqp_paraphrase" / "valid.tsv"
    if snli.is_file():
        found["snli"] = [(a, b) for (a, b), label in labelled(tsv_rows(snli), LESSONS["snli"]) if label in POSITIVE]
    if quora.is_file():
        found["qqp_paraphrase"] = list(map(rewording, tsv_rows(quora)))
    return found


def rewording(told: tuple[str, Mapping[str, Any]]) -> Pair:
    """Both questions of a row.

    Raises:
        UserError: a column is missing.
    """
    where, row = told
    if not {"source", "target"} <= row.keys():
        raise UserError(f"{where}: a pair has columns source and target, and there are {', '.join(row)}")
    return row["source"], row["target"]


def neighbours(path: Path, *, words: int) -> list[Pair]:
    """Sentences of a paragraph, two and two, where both have 5 words or more, and at most so many."""
    found: list[Pair] = []
    for line in text_lines(path):
        kept = [part for part in _SENTENCE.split(line.strip()) if 5 <= len(part.split()) <= words]
        found += zip(kept[:-1:2], kept[1::2], strict=False)
    return found


def main() -> None:
    """Writes all three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--neighbours", type=Path, help="a plain text file, one paragraph a line")
    parser.add_argument("--count", type=int, default=50_000, help="of its pairs, drawn at random")
    parser.add_argument("--words", type=int, default=40, help="the most that a sentence may have")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    draw = random.Random(args.seed)
    try:
        tasks, held = task_pairs(args.folder)
        sources = tasks | other_pairs(args.folder)
        plain = plain_sentences(args.folder)
        nearby = [] if args.neighbours is None else neighbours(args.neighbours, words=args.words)
    except (OSError, UserError) as error:
        parser.error(str(error))
    pairs: list[Pair] = []
    counts: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    for source, own in sources.items():
        for pair in own:
            if wording_of(pair) in held:
                counts["left out: in another split"] += 1
            elif wording_of(pair) in seen:
                counts["left out: given already"] += 1
            elif max(len(side.split()) for side in pair) > args.words:
                counts["left out: too long"] += 1
            else:
                counts[source] += 1
                seen.add(wording_of(pair))
                pairs.append(pair if draw.random() < 0.5 else (pair[1], pair[0]))
    draw.shuffle(pairs)
    if len(pairs) <= VALIDATION:
        parser.error(f"{args.folder}: {len(pairs)} pairs were found, too few to train on")
    valid, train = pairs[:VALIDATION], pairs[VALIDATION:]
    train += draw.sample(nearby, min(args.count, len(nearby)))
    draw.shuffle(train)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, some in (("train", train), ("valid", valid)):
        lines = (json.dumps({"a": a, "b": b}, ensure_ascii=False) for a, b in some)
        (args.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = (json.dumps({"text": sentence}, ensure_ascii=False) for sentence in draw.sample(plain, len(plain)))
    (args.out / "sentences.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps({**counts, "train": len(train), "valid": len(valid), "sentences": len(plain)}))


if __name__ == "__main__":
    main()
