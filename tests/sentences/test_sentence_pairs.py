"""Training pairs out of a folder of sentence tasks (benchmarks/sentence_pairs.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import sentence_pairs
from sentence_pairs import plain_sentences

SCRIPT = Path(sentence_pairs.__file__)


def write(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def test_positive_training_pairs_are_written_but_for_those_that_stand_in_another_split(tmp_path):
    """Whatever their order, case and punctuation there; each pair once, and no negative pair or long sentence."""
    data, out = tmp_path / "data", tmp_path / "out"
    pairs, scores = "sentence1\tsentence2\tlabel", "sentence1\tsentence2\tscore"
    same = [f"question {k} here\tthe {k}th question\t1" for k in range(600)]
    held = ["A cat sat\ta dog  ran\t1", "never\tthe same\t0"]
    again = ["The 7th question?\tQuestion 7 here!\t1"]
    write(data / "qqp" / "dev.tsv", pairs, [*same, *again, *held, f"short\t{'long ' * 50}\t1"])
    write(data / "qqp" / "test.tsv", pairs, ["a dog, ran\ta CAT sat.\t0"])
    write(data / "stsb" / "train.tsv", scores, ["up\thigh\t4.2", "up\tdown\t3.8"])
    write(data / "stsb" / "test.tsv", scores, ["x\ty\t5"])
    done = subprocess.run([sys.executable, SCRIPT, data, out], capture_output=True, text=True, check=True)
    counts = json.loads(done.stdout)
    assert counts == {
        "qqp": 600,
        "stsb": 1,
        "left out: in another split": 1,
        "left out: given already": 1,
        "left out: too long": 1,
        "train": 101,
        "valid": 500,
        "sentences": 1207,
    }
    rows = [json.loads(line) for name in ("train", "valid") for line in (out / f"{name}.jsonl").open(encoding="utf-8")]
    assert {frozenset(row.values()) for row in rows} == {
        *(frozenset(pair.split("\t")[:2]) for pair in same),
        frozenset(("up", "high")),
    }


def test_all_training_sentences_are_written_once_but_for_those_that_stand_in_another_split(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    pairs = "sentence1\tsentence2\tlabel"
    rows = [f"question {k} here\tthe {k}th question\t{k % 2 or 1}" for k in range(600)]
    write(data / "qqp" / "dev.tsv", pairs, [*rows, "Not alike\tquestion 3, here!\t0", "held out\tno label\t0"])
    write(data / "qqp" / "test.tsv", pairs, ["HELD out.\tnever seen\t0"])
    write(data / "snli" / "dev.tsv", pairs, ["a man sits\ta cat sleeps\tcontradiction", "not alike\tx\tneutral"])
    subprocess.run([sys.executable, SCRIPT, data, out], capture_output=True, text=True, check=True)
    found = [json.loads(line)["text"] for line in (out / "sentences.jsonl").open(encoding="utf-8")]
    plain = {" ".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) for text in found}
    assert len(plain) == len(found) == 1200 + 5
    assert {"not alike", "no label", "a man sits", "a cat sleeps", "x"} <= plain
    assert plain.isdisjoint({"held out", "never seen"})


@pytest.mark.parametrize(
    ("path", "header", "row", "said"),
    [
        ("stsb/train.tsv", "sentence1\tsentence2\tscore", "a\tb\tmuch", "'much' is no degree"),
        ("snli/dev.tsv", "sentence1\tsentence2\tlabel", "a\tb", "line 2: 2 columns"),
        ("qqp_paraphrase/valid.tsv", "one\tother", "a\tb", "columns source and target"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, path, header, row, said):
    write(tmp_path / "data" / path, header, [row])
    done = subprocess.run([sys.executable, SCRIPT, tmp_path / "data", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_sentence_of_no_words_is_not_written(tmp_path):
    pairs = "sentence1\tsentence2\tlabel"
    write(tmp_path / "qqp" / "dev.tsv", pairs, ["\tbeside nothing\t0", "  \tbeside a space\t1"])
    write(tmp_path / "qqp" / "test.tsv", pairs, ["held\tout\t0"])
    write(tmp_path / "snli" / "dev.tsv", pairs, ["a man sits\t\tneutral"])
    assert plain_sentences(tmp_path) == ["beside nothing", "beside a space", "a man sits"]
