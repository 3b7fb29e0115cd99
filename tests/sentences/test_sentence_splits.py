"""Files of sentence tasks, and what is trained on and reported of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from toy_sentences import GRADED, PAIRED, SINGLE, apart

from remask.errors import UserError
from remask.sentences.hub import hub_splits
from remask.sentences.splits import Labelled, folder_splits, linked, parted, task_data, wording_of
from remask.sentences.tables import file_rows
from remask.sentences.tasks import HEADS, SENTENCE_TASKS, HubPlace, SentenceTask, heads_for

ROWS = [(('say "this"', "it's that"), "1"), (("one", "two"), "0")]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write(path, *rows, header="sentence1\tsentence2\tlabel"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_quotation_mark_is_text_and_rows_without_a_label_are_left_out(tmp_path):
    path = write(tmp_path / "a.tsv", 'say "this"\tit\'s that\t1', "hidden\ttest\t-1", "one\ttwo\t0")
    assert list(file_rows(path, PAIRED)) == ROWS


def test_json_lines_and_parquet_hold_the_same_rows_whatever_type_a_label_has(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = [{"question1": a, "question2": b, "label": float(label), "idx": 5} for (a, b), label in ROWS]
    table.append({"question1": "no", "question2": "label", "label": math.nan, "idx": 6})
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, table)))
    parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "a.parquet")
    assert list(file_rows(tmp_path / "a.jsonl", PAIRED)) == list(file_rows(tmp_path / "a.parquet", PAIRED)) == ROWS


def test_a_degree_is_read_where_a_class_stands_beside_it(tmp_path):
    path = write(tmp_path / "a.tsv", "x\ty\t2\t4.5", header="sentence_A\tsentence_B\tlabel\trelatedness_score")
    assert list(file_rows(path, GRADED)) == [(("x", "y"), "4.5")]


@pytest.mark.parametrize(
    ("row", "header", "said"),
    [
        ("x\ty", "sentence1\tsentence2\tlabel", "line 2: 2 columns, and the header has 3"),
        ("x\ty\t1", "sentence1\tother\tlabel", "toy needs a column called sentence2 or question2"),
    ],
)
def test_a_broken_file_is_named_with_its_line_or_column(tmp_path, row, header, said):
    with pytest.raises(UserError, match=said):
        list(file_rows(write(tmp_path / "a.tsv", row, header=header), PAIRED))


def pairs(*labels, word="w"):
    return [((f"{word}{k}", f"{word}{k} too"), label) for k, label in enumerate(labels)]


def made(splits, *, wanted=None, limit=None, task=PAIRED):
    return task_data(task, {k: (k, v) for k, v in splits.items()}, wanted=wanted, limit=limit, seed=0)


def test_training_pairs_that_are_reported_on_are_left_out_and_counted_whatever_their_order_case_and_signs():
    twins = [(("W1  TOO!", "w1."), "0"), (("w0", "<w0> too"), "1")]
    data = made({"train": [*pairs("1", "0", word="v"), *twins], "test": pairs("1", "0")})
    assert (data.overlapping, len(data.train), len(data.reported)) == (2, 2, 2)
    assert data.train.texts == (("v0", "v1"), ("v0 too", "v1 too"))
    assert data.train.labels.tolist() == [1, 0]


def test_dev_is_trained_on_where_there_is_no_train_split_and_then_never_reported():
    splits = {"dev": pairs("1", "0", word="v"), "test": pairs("1", "0")}
    data = made(splits)
    assert (data.trained_on, data.split) == ("dev", "test")
    with pytest.raises(UserError, match="reporting on dev needs labelled splits dev and train"):
        made(splits, wanted="dev")


def test_test_is_reported_where_it_is_labelled_else_dev_and_either_where_asked():
    three = {"train": pairs("1", "0", word="u"), "dev": pairs("1", "0", word="v"), "test": pairs("1", "0")}
    assert made(three).split == "test"
    assert made(three, wanted="dev").split == "dev"
    del three["test"]
    assert made(three).split == "dev"


def test_labels_of_one_annotator_are_trained_on_and_not_reported(tmp_path):
    task = SENTENCE_TASKS["mnli"]
    write(tmp_path / "mnli/dev_mismatched_one_annotator.tsv", "a\tb\tneutral", "c\td\tentailment")
    write(tmp_path / "mnli/dev_matched.tsv", "e\tf\tneutral", "g\th\tentailment")
    data = task_data(task, folder_splits(tmp_path, task), wanted=None, limit=None, seed=0)
    assert (data.trained_on, data.split) == ("dev_mismatched_one_annotator", "dev_matched")
    assert data.classes == ("entailment", "neutral")
    assert data.reported.labels.tolist() == [1, 0]


def test_a_limit_draws_the_same_training_examples_and_leaves_what_is_reported_whole():
    splits = {"train": pairs(*"10" * 30, word="v"), "test": pairs(*"10" * 10)}
    few, again = made(splits, limit=20), made(splits, limit=20)
    assert few.train.texts == again.train.texts
    assert (len(few.train), len(few.reported), len(few.sentences)) == (20, 20, 120)
    whole = made(splits)
    assert set(few.train.texts[0]) < set(whole.train.texts[0])
    assert (few.identity, few.training_identity) == (whole.identity, whole.training_identity)
    assert whole.identity != made({**splits, "test": pairs(*"10" * 9)}).identity


def test_labels_that_were_not_trained_on_or_are_no_numbers_are_refused():
    with pytest.raises(UserError, match="toy, test: label '2' is not among those trained on: 0, 1"):
        made({"train": pairs("1", "0", word="v"), "test": pairs("2")})
    for label in ("much", "nan", "inf"):
        with pytest.raises(UserError, match=f"stsb, test: '{label}' is no degree. Give numbers"):
            made({"train": pairs("1", "0", word="v"), "test": pairs(label)}, task=GRADED)
    with pytest.raises(UserError, match="two classes, 1 among them; there is 0"):
        made({"train": pairs("0", "0", word="v"), "test": pairs("0")})


def test_settings_are_chosen_on_a_tenth_that_is_not_fitted_on():
    fit, choose = parted(apart(200), seed=0)
    assert (len(fit), len(choose)) == (180, 20)
    assert sorted([*fit, *choose]) == list(range(200))
    assert choose.tolist() == parted(apart(200), seed=0)[1].tolist() != parted(apart(200), seed=1)[1].tolist()
    assert len(parted(apart(20_000), seed=0)[1]) == 1000
    with pytest.raises(UserError, match="9 training examples are too few"):
        parted(apart(9), seed=0)


def labelled(*columns):
    return Labelled(texts=tuple(map(tuple, columns)), labels=np.arange(len(columns[0])) % 2)


def told(examples, chosen):
    return {" ".join(text.casefold().split()) for column in examples.take(chosen).texts for text in column}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_sentence_stands_in_the_fitted_part_and_in_the_part_that_settings_are_chosen_on(seed):
    chains = labelled([f"is {k // 4} {k % 4}" for k in range(200)], [f"Is  {k // 4} {(k + 1) % 4}" for k in range(200)])
    singles = labelled([f"said {k % 50}" if k % 2 else f" SAID {k % 50}" for k in range(200)])
    for examples in (chains, singles):
        fit, choose = parted(examples, seed=seed)
        assert len(choose) == 20
        assert sorted([*fit, *choose]) == list(range(200))
        assert not told(examples, fit) & told(examples, choose)


def test_examples_are_linked_by_way_of_others_and_by_sentences_of_either_side():
    examples = labelled(["a", "c", "x", "y"], ["b", "d", "y", "z"])
    assert linked(examples).tolist() == [0, 1, 2, 2]
    both = labelled(["a", "c", "x", "B  "], ["b", "d", "y", "C"])
    assert linked(both).tolist() == [0, 0, 1, 0]


def test_a_group_that_the_tenth_has_no_room_for_is_fitted_on():
    giant = labelled(["hub"] * 60 + [f"u{k}" for k in range(40)], [f"v{k}" for k in range(100)])
    fit, choose = parted(giant, seed=0)
    assert (len(choose), set(fit) >= set(range(60))) == (10, True)
    fours = labelled([f"said {k // 4}" for k in range(12)])
    assert [len(part) for part in parted(fours, seed=0)] == [8, 4]
    with pytest.raises(UserError, match="shared sentences link all 20 training examples"):
        parted(labelled(["same"] * 20), seed=0)


def test_a_missing_folder_says_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="has no paws/ or paws_wiki/ for --task paws"):
        folder_splits(tmp_path, SENTENCE_TASKS["paws"])


def test_splits_of_a_hugging_face_dataset_are_found_under_its_own_names(tmp_path):
    import datasets

    def split(*labels):
        return datasets.Dataset.from_dict(
            {"premise": list("abcd"), "hypothesis": list("efgh"), "label": list(labels), "idx": [0, 1, 2, 3]}
        )

    own = {"train": split(0, 1, 2, 1), "validation_matched": split(0, 1, 2, -1), "test_matched": split(-1, -1, -1, -1)}
    datasets.DatasetDict(own).save_to_disk(str(tmp_path / "glue"))
    task = SentenceTask(
        name="mnli", folders=(), sentences=2, metrics=("accuracy",), hub=HubPlace(dataset=str(tmp_path / "glue"))
    )
    found = hub_splits(task)
    assert {name: (own, len(rows)) for name, (own, rows) in found.items()} == {
        "train": ("train", 4),
        "dev": ("validation_matched", 3),
    }
    assert found["train"][1][0] == (("a", "e"), "0")


def test_heads_are_left_out_of_tasks_that_they_do_not_fit():
    every = tuple(HEADS)
    assert heads_for(GRADED, every) == every
    assert heads_for(PAIRED, every) == (
        "probe",
        "slot_probe",
        "overlap_probe",
        "cls",
        "via_decoder",
        "pooled",
        "pair",
        "match",
        "overlap",
        "named",
    )
    assert heads_for(SINGLE, every) == ("probe", "cls", "via_decoder", "pooled")


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not there")
def test_shared_sets_are_read_whole():
    for name, expected in {"rte": (2490, 277, 0), "cola": (8532, 1043, 19)}.items():
        task = SENTENCE_TASKS[name]
        data = task_data(task, folder_splits(SHARED, task), wanted=None, limit=None, seed=0)
        assert (len(data.train), len(data.reported), data.overlapping) == expected


def test_sentences_are_the_same_whose_letters_marks_and_digits_are():
    def alike(one, other):
        return wording_of([one]) == wording_of([other])

    assert alike("The <.IXIC> rose, 2 %!", "the .ixic rose 2")
    assert alike("caf\u00e9 x", "cafe\u0301 x")
    assert not alike("\u0915\u093f", "\u0915\u093e")  # one consonant, two vowel signs
    assert not alike("in 1999", "in 1998")
    assert not alike("?!", "...")
