"""Long prompts whose end is worth knowing: K sentences, and the rewordings of the last of them.

From the pairs of PAWS-Wiki (sentence1, sentence2) each row draws K different pairs. What is given are their K first
sentences, what is to be written the last two's second ones. So a prefix of some 430 tokens decides most of a suffix of
some 70, and where in the prefix it stands is known: a bottleneck has something to carry, and a mean of all tokens keeps
little of it. Training and validation rows are made of different pairs of one file, test rows of another file.

Run: .venv/bin/python benchmarks/piled_pairs.py FOLDER/paws_wiki/dev.tsv FOLDER/paws_wiki/test.tsv OUT
     [--sentences 12] [--asked 2] [--rows 16000] [--seed 1]
Writes OUT/{train,validation,test}.jsonl with keys `a` (given) and `b` (to be written).
"""

import argparse
import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

HELD_OUT_PAIRS = 300
"""Pairs of the first file that validation rows are made of."""
HELD_OUT_ROWS = 400
"""Rows of validation, and of test."""

Pair = tuple[str, str]


def read_pairs(path: Path) -> list[Pair]:
    """Both sentences of every row, whatever its label: even those that mean something else share nearly all words."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence1"], row["sentence2"]) for row in rows]


def piled(pairs: Sequence[Pair], draw: random.Random, *, sentences: int, asked: int) -> dict[str, str]:
    """One row: so many sentences given, the rewordings of the last few asked for."""
    chosen = draw.sample(pairs, sentences)
    given, wanted = (first for first, _ in chosen), (second for _, second in chosen[-asked:])
    return {"a": " ".join(given) + " ", "b": " ".join(wanted)}


def write_rows(path: Path, pairs: Sequence[Pair], *, rows: int, seed: int, sentences: int, asked: int) -> None:
    """A file of rows, one JSON object a line."""
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            print(json.dumps(piled(pairs, draw, sentences=sentences, asked=asked), ensure_ascii=False), file=file)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="pairs for training and validation: tab-separated, with a header")
    parser.add_argument("test_pairs", type=Path, help="pairs for testing")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--sentences", type=int, default=12, help="sentences given a row")
    parser.add_argument("--asked", type=int, default=2, help="of how many of the last the rewordings are asked for")
    parser.add_argument("--rows", type=int, default=16_000, help="rows of training")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Writes the three files."""
    arguments = read_arguments()
    if not 1 <= arguments.asked <= arguments.sentences:
        raise SystemExit(f"--asked {arguments.asked}: of --sentences {arguments.sentences}, 1 to all may be asked for")
    for path in (arguments.pairs, arguments.test_pairs):
        if not path.is_file():
            raise SystemExit(f"{path}: there is no such file; give dev.tsv and test.tsv of PAWS-Wiki")
    pairs, seed = read_pairs(arguments.pairs), arguments.seed
    random.Random(seed).shuffle(pairs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    sizes = {"sentences": arguments.sentences, "asked": arguments.asked}
    for name, some, rows, place in (
        ("train", pairs[HELD_OUT_PAIRS:], arguments.rows, 1),
        ("validation", pairs[:HELD_OUT_PAIRS], HELD_OUT_ROWS, 2),
        ("test", read_pairs(arguments.test_pairs), HELD_OUT_ROWS, 3),
    ):
        write_rows(arguments.out / f"{name}.jsonl", some, rows=rows, seed=seed + place, **sizes)


if __name__ == "__main__":
    main()
