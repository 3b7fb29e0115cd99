"""Files and sentences of tasks that are real, and not as a table in a book."""

import json

import numpy as np
import pytest
from toy_sentences import GRADED, PAIRED, SINGLE, subject, words

from remask.errors import UserError
from remask.sentences.baselines import CHARACTERS, PROBED, WORDS, tfidf_cosines, tfidf_probe
from remask.sentences.encoders import SentenceEncoder, Wording
from remask.sentences.metrics import accuracy, pearson
from remask.sentences.splits import Labelled, folder_splits, linked, parted, refuse_linked, task_data
from remask.sentences.tables import file_rows
from remask.sentences.tasks import SENTENCE_TASKS
from remask.sentences.teaching import lessons_of
from remask.tokenizers import ByteTokenizer


def write(path, header, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def labelled(*texts, labels):
    return Labelled(texts=tuple(map(tuple, texts)), labels=np.array(labels))


def data_of(task, rows, held):
    return task_data(task, {"train": ("train", rows), "test": ("test", held)}, wanted=None, limit=None, seed=1)


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_test_file_without_a_column_of_labels_is_a_split_without_labels(tmp_path):
    header = "sentence1\tsentence2\tlabel"
    write(tmp_path / "mrpc" / "train.tsv", header, "a\tb\t1", "c\td\t0")
    write(tmp_path / "mrpc" / "dev.tsv", header, "e\tf\t1", "g\th\t0")
    write(tmp_path / "mrpc" / "test.tsv", "index\tsentence1\tsentence2", "0\ti\tj")
    splits = folder_splits(tmp_path, SENTENCE_TASKS["mrpc"])
    assert list(splits) == ["train", "dev"]
    write(tmp_path / "mrpc" / "train.tsv", "index\tsentence1\tsentence2", "0\ti\tj")
    with pytest.raises(UserError, match="needs a column called label"):
        folder_splits(tmp_path, SENTENCE_TASKS["mrpc"])


def test_a_test_file_whose_column_of_labels_is_in_other_letters_or_has_gaps_is_refused(tmp_path):
    header = "sentence1\tsentence2\tlabel"
    write(tmp_path / "mrpc" / "train.tsv", header, "a\tb\t1", "c\td\t0")
    write(tmp_path / "mrpc" / "test.tsv", "sentence1\tsentence2\tLabel", "i\tj\t1")
    with pytest.raises(UserError, match="needs a column called label"):
        folder_splits(tmp_path, SENTENCE_TASKS["mrpc"])
    (tmp_path / "mrpc" / "test.tsv").unlink()
    rows = [{"sentence1": "i", "sentence2": "j"}, {"sentence1": "k", "sentence2": "l", "label": 1}]
    (tmp_path / "mrpc" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match="line 1: mrpc needs a column called label"):
        folder_splits(tmp_path, SENTENCE_TASKS["mrpc"])


def test_degrees_and_labels_that_are_no_whole_numbers_stay_as_they_are_written(tmp_path):
    path = write(tmp_path / "a.tsv", "sentence1\tsentence2\tscore", "x\ty\t3.800", "x\ty\t5.000", "x\ty\t-1.0")
    assert [label for _, label in file_rows(path, GRADED)] == ["3.800", "5.000"]
    labels = ["1_0", "12345678901234567891", "nan", "1e0"]
    path = write(tmp_path / "b.tsv", "sentence\tlabel", *(f"x\t{label}" for label in labels))
    assert [label for _, label in file_rows(path, SINGLE)] == labels


def test_the_columns_of_the_distributed_files_of_qqp_and_mrpc_are_known(tmp_path):
    quora = write(tmp_path / "q.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t1\t2\ta\tb\t1")
    news = write(tmp_path / "m.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\ta\tb")
    assert list(file_rows(quora, PAIRED)) == list(file_rows(news, PAIRED)) == [(("a", "b"), "1")]


def test_a_label_is_the_same_whatever_it_is_written_as(tmp_path):
    written = ["1", "1.0", " 1 ", "0", "0.0"]
    path = write(tmp_path / "a.tsv", "sentence\tlabel", *(f"x\t{label}" for label in written), "", "x\t-1.0", "x\t-")
    assert [label for _, label in file_rows(path, SINGLE)] == ["1", "1", "1", "0", "0"]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"sentence": "x", "label": label}) for label in (True, False, 1.0, "yes")))
    assert [label for _, label in file_rows(path, SINGLE)] == ["1", "0", "1", "yes"]


def test_a_row_without_a_sentence_is_named_and_one_with_an_empty_sentence_is_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"sentence": "", "label": 1}\n{"sentence": null, "label": 1}\n')
    rows = file_rows(path, SINGLE)
    assert next(rows) == (("",), "1")
    with pytest.raises(UserError, match="line 2, 'sentence': there is no sentence"):
        next(rows)


def test_degrees_that_are_all_equal_are_refused_since_nothing_correlates_with_them():
    rows = [((f"a{k}", f"b{k}"), str(k % 5)) for k in range(20)]
    with pytest.raises(UserError, match="all 3 degrees are -1"):
        data_of(GRADED, rows, [((f"c{k}", "d"), "-1.00") for k in range(3)])


# ── parts ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(12))
def test_the_only_example_of_a_class_is_fitted_on(seed):
    texts = [f"sentence number {k}" for k in range(40)]
    fit, choose = parted(labelled(texts, labels=[1] + [0] * 39), seed=seed)
    assert 0 in fit
    assert len(choose) == 4


def test_examples_of_which_each_group_has_the_last_of_a_class_are_refused():
    same = labelled(["one"] * 6 + ["two"] * 6, labels=[0] * 6 + [1] * 6)
    with pytest.raises(UserError, match="has the last of a label"):
        parted(same, seed=1)


def test_empty_sentences_link_no_examples():
    assert linked(labelled(["", "", "?", ""], ["a", "b", "c", "a"], labels=[0, 1, 0, 1])).tolist() == [0, 1, 2, 0]
    assert len(set(linked(labelled(["", "", ""], labels=[0, 1, 0])).tolist())) == 3


def test_reported_examples_that_shared_sentences_link_are_refused_before_anything_is_measured():
    rows = [((f"a{k}", f"b{k}"), str(k % 2)) for k in range(20)]
    refuse_linked(data_of(PAIRED, rows, [(("x", "y"), "1"), (("v", "w"), "0")]))
    with pytest.raises(UserError, match="link all 2 examples"):
        refuse_linked(data_of(PAIRED, rows, [(("x", "y"), "1"), (("x", "z"), "0")]))


# ── what stands beside ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("said", ["word{}", "?!{}"], ids=["no word twice", "signs"])
def test_sentences_without_a_frequent_word_or_without_any_have_a_tfidf(said):
    """A word that stands in one sentence alone, and signs, count where nothing else could."""
    signs = ["#", "%", "&", "*", "+"]
    rows = [((said.format(k if "w" in said else signs[k % 5] * (k + 1)),), str(k % 2)) for k in range(20)]
    data = data_of(SINGLE, rows, [((said.format("less" if "w" in said else "&"),), "1"), (("zzz",), "0")])
    parts = np.arange(16), np.arange(16, 20)
    assert len(tfidf_probe(data, parts=parts, metric=accuracy).predictions) == 2


def test_empty_sentences_alone_are_refused():
    data = data_of(PAIRED, [(("", ""), "1"), ((" ", ""), "0")], [(("x", "y"), "1"), (("v", "w"), "0")])
    for options in (WORDS, CHARACTERS, PROBED):
        with pytest.raises(UserError, match="its sentences are empty"):
            tfidf_cosines(data, options)


def test_a_lesson_without_pairs_is_refused():
    judged = data_of(
        PAIRED, [((f"a{k}", f"b{k}"), str(k % 2)) for k in range(20)], [(("x", "y"), "1"), (("z", "w"), "0")]
    )
    with pytest.raises(UserError, match="--taught qqp: it has no labelled pair"):
        lessons_of({"qqp": {}}, judged={"mrpc": judged}, seed=1)
    known = {"train": ("train", [(("x", "y"), "1"), (("w", "z"), "0")])}
    with pytest.raises(UserError, match="--taught qqp: no pair is left"):
        lessons_of({"qqp": known}, judged={"mrpc": judged}, seed=1)


def test_correlation_of_numbers_that_are_too_small_to_square_is_nothing():
    assert pearson(np.array([0.0, 1e-300]), np.array([0.0, 1.0])) == 0.0
    assert pearson(np.array([0.0, 1e-150, 2e-150]), np.array([0.0, 1.0, 2.0])) == pytest.approx(1.0)


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pairs_in_one_row_are_cut_where_both_together_are_too_long():
    wording = Wording(tokenizer=ByteTokenizer(), length=7)
    assert [len(row) for row in wording.joined(["abcdef", "abc"], ["abcdef", "abc"])] == [7, 7]
    assert wording.too_long(["abcdef", "abc"], ["abcdef", "abc"]) == 0
    assert wording.too_long_together(["abcdef", "abc"], ["abcdef", "abc"]) == 1
    assert wording.too_long_together(["abcdefgh", "abc"]) == wording.too_long(["abcdefgh", "abc"]) == 1


def test_means_are_those_of_all_vectors_in_the_order_of_the_sentences():
    own = subject()
    encoder = SentenceEncoder(network=own.network, read=own.read, wording=own.wording)
    texts = words(150, seed=3)
    assert encoder.encode(texts).shape[1] == 2
    assert np.array_equal(encoder.means(texts), encoder.encode(texts).mean(1, keepdims=True))
    assert np.allclose(encoder.means(texts[70:71]), encoder.means(texts)[70:71], atol=1e-6)
