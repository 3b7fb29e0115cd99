"""Prompts with responses: read from files, stored, and laid out one a row; only responses and their ends count."""

import gzip
import json
import math

import numpy as np
import pytest
import torch

from remask.data.corpora import open_corpus
from remask.data.documents import Pair
from remask.data.feed import RowsFeed
from remask.data.packing import PackedRows, Rows
from remask.data.pairs import FilledPairRows, PairRows
from remask.data.splits import plan_splits
from remask.data.store import build_stores
from remask.errors import UserError
from remask.evaluation.likelihood import ends_nats
from remask.evaluation.trivial import fit_trivial
from remask.tokenizers import ByteTokenizer

EOS = ByteTokenizer().eos_id
PAIRS = [("1+1=", "2"), ("10+5=", "15"), ('say "hi"', 'hi, "you"'), ("tab", "a b")]


def written(path, kind, pairs=PAIRS, *, names=("ask", "say")):
    """The pairs in a file of one kind, beside a column that nobody reads."""
    if kind.startswith("jsonl"):
        text = "".join(json.dumps({names[0]: p, "more": 1, names[1]: r}) + "\n" for p, r in pairs)
    elif kind.startswith("tsv"):
        text = "".join(f"{p}\tx\t{r}\n" for p, r in [names, *pairs])
    else:
        quoted = [tuple('"' + cell.replace('"', '""') + '"' for cell in pair) for pair in pairs]
        text = "".join(f"{p},x,{r}\n" for p, r in [names, *quoted])
    path = path / f"pairs.{kind}"
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    return path


def corpus_of(path, *, cache, **options):
    return open_corpus(path, prompt_key="ask", response_key="say", cache=cache, **options)


def train_store(tmp_path, pairs=PAIRS, **options):
    """The training store of pairs that all train."""
    other = tmp_path / "other"
    other.mkdir(exist_ok=True)
    validation = written(other, "jsonl", [("never", "seen")])
    corpus = corpus_of(written(tmp_path, "jsonl", pairs), validation=validation, cache=tmp_path / "cache", **options)
    return build_stores(corpus, ByteTokenizer(), cache=tmp_path / "cache")["train"]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "csv.gz", "tsv"])
def test_every_kind_of_file_gives_the_same_pairs(kind, tmp_path):
    corpus = corpus_of(written(tmp_path, kind), cache=tmp_path)
    found = sorted((pair.prompt, pair.response) for split in corpus.splits for pair in corpus.pairs(split))
    assert found == sorted(PAIRS)
    assert sorted(text for _, text in corpus.walk()) == sorted(p + r for p, r in PAIRS)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_a_text_file_may_be_pairs_with_two_bars_between(end, tmp_path):
    (tmp_path / "a.txt").write_bytes(end.join([*(f"{p}||{r}" for p, r in PAIRS), "", "2||x||y", ""]).encode())
    corpus = open_corpus(tmp_path / "a.txt", prompt_key="prompt", response_key="response", cache=tmp_path)
    found = sorted((pair.prompt, pair.response) for split in corpus.splits for pair in corpus.pairs(split))
    assert found == sorted([*PAIRS, ("2", "x||y")])


def test_parquet_gives_the_same_pairs(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"ask": [p for p, _ in PAIRS], "say": [r for _, r in PAIRS]})
    parquet.write_table(table, tmp_path / "a.parquet")
    corpus = corpus_of(tmp_path / "a.parquet", cache=tmp_path)
    assert sorted(pair.text for s in corpus.splits for pair in corpus.pairs(s)) == sorted(p + r for p, r in PAIRS)


def test_a_hugging_face_dataset_gives_the_same_pairs(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"ask": [p for p, _ in PAIRS], "say": [r for _, r in PAIRS]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "set"))
    corpus = corpus_of(f"hf:{tmp_path / 'set'}", cache=tmp_path, separator=">")
    assert [(pair.prompt, pair.response) for pair in corpus.pairs("test")] == [(p + ">", r) for p, r in PAIRS]


def test_what_ends_a_prompt_stands_behind_each_of_them(tmp_path):
    corpus = corpus_of(written(tmp_path, "jsonl"), cache=tmp_path, separator="\n")
    assert {pair.prompt for s in corpus.splits for pair in corpus.pairs(s)} == {p + "\n" for p, _ in PAIRS}


def test_pairs_with_a_blank_side_are_left_out(tmp_path):
    path = written(tmp_path, "jsonl", [*PAIRS, ("unanswered", " "), ("", "unasked")])
    corpus = corpus_of(path, cache=tmp_path)
    assert sum(1 for _ in corpus.items()) == len(PAIRS)


def test_one_prompt_never_stands_in_two_splits():
    documents = [Pair(prompt=str(k % 40), response=str(k)) for k in range(400)]
    plan = plan_splits(documents, wanted=("train", "validation", "test"))
    splits = {}
    for document in documents:
        ((split, _),) = plan.parts(document)
        splits.setdefault(document.prompt, set()).add(split)
    assert {len(found) for found in splits.values()} == {1}
    assert set().union(*splits.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("content", "name", "options", "message"),
    [
        ('{"ask": "a"}', "a.jsonl", {}, r"line 1: no key 'say'.*data.prompt_key and data.response_key"),
        ("ask,sai\na,b\n", "a.csv", {}, "no column 'say'; did you mean 'sai'"),
        ("ask,say\na,b,c\n", "a.csv", {}, "line 2: 3 cells, and the header has 2"),
        ('ask,say\n"a,b\n', "a.csv", {}, "not CSV"),
        ("ask\tsay\na\n", "a.tsv", {}, "line 2: 1 cells, and the header has 2"),
        ("ask,say\n", "a.csv", {}, "is empty"),
        ("text", "a.md", {}, "need named columns"),
        ("a||b\n", "a.txt", {}, "no column 'ask'; .*Valid: prompt, response"),
        ("a||b\n\na|b\n", "a.txt", {"prompt_key": "prompt", "response_key": "response"}, r"line 3: no \|\| between"),
        ('{"ask": "a", "say": 1}', "a.jsonl", {}, "'say': the text is no string but int"),
        ('{"ask": "a"}', "a.jsonl", {"response_key": None}, "data.response_key is not given"),
        ('{"ask": "a"}', "a.jsonl", {"response_key": "ask"}, "name two columns"),
        ('{"ask": "a", "say": "b"}', "a.jsonl", {}, "fewer different prompts than splits"),
    ],
)
def test_a_mistake_is_one_clear_line(content, name, options, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        list(
            open_corpus(
                tmp_path / name, **{"prompt_key": "ask", "response_key": "say", **options}, cache=tmp_path
            ).walk()
        )
    assert "\n" not in str(error.value)


def test_plain_text_has_no_pairs(tmp_path):
    (tmp_path / "a.txt").write_text("a\nb\nc")
    with pytest.raises(UserError, match="plain text"):
        open_corpus(tmp_path / "a.txt", cache=tmp_path).pairs("train")


def test_a_store_knows_where_each_prompt_ends(tmp_path):
    store = train_store(tmp_path)
    assert store.prompt_lengths is not None
    assert store.prompt_lengths.tolist() == [len(p) for p, _ in PAIRS]
    assert store.text_bytes_total == store.byte_lengths.sum() == sum(len(p + r) for p, r in PAIRS)
    counts = store.token_counts()
    assert counts.sum() == sum(len(r) + 1 for _, r in PAIRS), "prompts are not counted"
    assert (counts[EOS], counts[ord("+")]) == (len(PAIRS), 0)
    np.testing.assert_array_equal(store.source_counts(), np.bincount(store.ids, minlength=store.vocab_size))


def test_a_row_is_prompt_response_end_and_padding_and_only_response_and_end_count(tmp_path):
    rows = PairRows(train_store(tmp_path), length=8)
    batch = rows.batch([1, 0])
    first, second = [*b"10+5=15", EOS], [*b"1+1=2", EOS]
    assert batch.ids.tolist() == [first, [*second, EOS, EOS]]
    assert batch.segments.tolist() == [[1] * 8, [1] * 6 + [0] * 2]
    assert batch.targets.tolist() == [[False] * 5 + [True] * 3, [False] * 4 + [True] * 2 + [False] * 2]
    assert batch.byte_lengths.tolist() == [[1] * 7 + [0], [1] * 5 + [0] * 3]
    assert isinstance(rows, Rows)
    assert isinstance(PackedRows(train_store(tmp_path), length=8), Rows)


def test_filled_rows_learn_ends_of_text_up_to_the_row_s_length(tmp_path):
    store = train_store(tmp_path)
    filled, padded = FilledPairRows(store, length=8), PairRows(store, length=8)
    batch, other = filled.batch([0]), padded.batch([0])
    assert torch.equal(batch.ids, other.ids)
    assert batch.segments.tolist() == [[1] * 8]
    assert batch.targets.tolist() == [[False] * 4 + [True] * 4]
    assert float(ends_nats(other, end_share=0.5).sum()) == pytest.approx(2 * math.log(2))
    assert (filled.shows_ends, padded.shows_ends) == (False, True)


@pytest.mark.parametrize("kind", [PairRows, FilledPairRows])
def test_bytes_a_target_are_those_of_the_rows(kind, tmp_path):
    rows = kind(train_store(tmp_path), length=8)
    batch = rows.batch(range(len(rows)))
    size = int((batch.byte_lengths * batch.targets).sum())
    assert rows.targets == int(batch.targets.sum())
    assert rows.bytes_per_target == pytest.approx(size / rows.targets)


def test_pairs_longer_than_a_row_are_left_out_and_counted(tmp_path):
    rows = PairRows(train_store(tmp_path), length=7)
    assert (len(rows), rows.left_out) == (2, 2)
    assert rows.batch([1]).ids[0, :6].tolist() == list(b"taba b")
    with pytest.raises(UserError, match=r"no pair of at most data.length=3 .*the shortest of 4 has 6"):
        PairRows(train_store(tmp_path), length=3)


def test_training_takes_every_pair_once_an_epoch(tmp_path):
    rows = PairRows(train_store(tmp_path), length=20)
    (step,) = next(RowsFeed(rows, batch_size=len(PAIRS), seed=1).open(start_step=0, process=0, processes=1))
    assert sorted(map(tuple, step.ids.tolist())) == sorted(map(tuple, rows.batch(range(4)).ids.tolist()))


def test_trivial_predictors_read_prompts_and_pay_for_responses_alone(tmp_path):
    store, tokenizer = train_store(tmp_path), ByteTokenizer()
    predictors = fit_trivial(store, tokenizer, cache=tmp_path / "cache")
    batch = FilledPairRows(store, length=8).batch([0])
    nats = predictors.nats([batch])
    assert nats["uniform"] == pytest.approx(4 * math.log(257))
    whole = predictors.ngrams.nats(np.array([*b"1+1=2", 256]))
    for order in (1, 2, 3):
        assert nats[f"byte {order}-gram"] == pytest.approx(whole[order - 1, 4:].sum())


def test_tokens_that_a_lossy_tokenizer_drops_from_a_prompt_are_paid_by_the_prompt(tmp_path):
    class Dropping(ByteTokenizer):
        """Makes no token of a capital letter."""

        def encode(self, text):
            return super().encode("".join(c for c in text if not c.isupper()))

        def encode_batch(self, texts):
            return [self.encode(text) for text in texts]

    other = written(tmp_path, "csv", [("never", "seen")])
    corpus = corpus_of(written(tmp_path, "jsonl", [("Ab", "cDE"), ("A", "b")]), validation=other, cache=tmp_path)
    store = build_stores(corpus, Dropping(), cache=tmp_path / "cache")["train"]
    assert store.byte_lengths.tolist() == [2, 1, 2, 2, 0]
