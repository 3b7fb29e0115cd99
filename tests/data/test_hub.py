"""Hugging Face datasets, offline: local folders of JSON lines, streamed or not."""

import json
import sys

import pytest

from remask.data.corpora import open_corpus
from remask.errors import UserError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture
def folder(tmp_path):
    def write(**splits):
        place = tmp_path / "set"
        place.mkdir(exist_ok=True)
        for name, rows in splits.items():
            (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return place

    return write


def rows(name, count):
    return [{"text": f"{name} document {i} café", "id": i} for i in range(count)]


def by_split(corpus):
    return {split: list(corpus.documents(split)) for split in corpus.splits}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_datasets_own_splits_are_used(folder, tmp_path, streaming):
    place = folder(train=rows("a", 40), validation=rows("b", 5), test=rows("c", 6))
    corpus = open_corpus(f"hf:{place}", streaming=streaming, cache=tmp_path / f"cache{streaming}")
    split = by_split(corpus)
    assert [len(split[name]) for name in ("train", "validation", "test")] == [40, 5, 6]
    assert split["validation"][0] == "b document 0 café"


def test_streaming_changes_no_document(folder, tmp_path):
    place = folder(train=rows("a", 100))
    plain = open_corpus(f"hf:{place}", cache=tmp_path / "one")
    streamed = open_corpus(f"hf:{place}", streaming=True, cache=tmp_path / "two")
    assert plain.splits == ("train", "validation", "test")
    assert by_split(plain) == by_split(streamed)
    assert plain.fingerprint == streamed.fingerprint


def test_a_changed_folder_is_gathered_again_and_an_unchanged_one_is_not(folder, tmp_path, monkeypatch):
    place = folder(train=rows("a", 10))
    first = open_corpus(f"hf:{place}", cache=tmp_path / "cache").fingerprint
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "datasets", None)
        assert open_corpus(f"hf:{place}", cache=tmp_path / "cache").fingerprint == first
    folder(train=rows("z", 10))
    assert open_corpus(f"hf:{place}", cache=tmp_path / "cache").fingerprint != first


@pytest.mark.parametrize("streaming", [False, True])
def test_at_most_so_many_documents_are_taken(folder, tmp_path, streaming):
    place = folder(train=[{"text": " "}, *rows("a", 40)], test=rows("c", 60))
    corpus = open_corpus(f"hf:{place}", max_documents=20, streaming=streaming, cache=tmp_path / "cache")
    split = by_split(corpus)
    assert len(split["train"]) + len(split["validation"]) == 20
    assert len(split["test"]) == 20


def test_a_saved_dataset_is_read_too(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows("a", 8))}).save_to_disk(tmp_path / "saved")
    assert len(list(open_corpus(f"hf:{tmp_path / 'saved'}", cache=tmp_path / "cache").walk())) >= 8


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_column_is_named(folder, tmp_path, streaming):
    place = folder(train=[{"texts": "a"}])
    with pytest.raises(UserError, match="no column 'text'; did you mean 'texts'"):
        open_corpus(f"hf:{place}", streaming=streaming, cache=tmp_path / "cache")
    assert not any(path.is_dir() for path in (tmp_path / "cache" / "texts").iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/no-such-dataset", "cannot load the Hugging Face dataset 'nobody/no-such-dataset'"),
        ("/nowhere/at/all", "no dataset folder"),
        ("", "names no dataset"),
    ],
)
def test_a_name_that_cannot_be_reached_is_one_clear_line(name, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        open_corpus(f"hf:{name}", cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_without_datasets_the_extra_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'remask\[datasets\]'"):
        open_corpus(f"hf:{folder(train=rows('a', 3))}", cache=tmp_path / "cache")
