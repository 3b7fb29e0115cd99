"""Training on several texts at once, and on text that is read while training goes on, by the command a user types."""

import json

import pytest
from command import BYTES, newest, refused, succeeds, weights, write_text

from remask.data.stream_feed import StreamReading
from remask.errors import RunError


@pytest.fixture
def shards(tmp_path, home):
    """Two folders of shards and a held-out file, in the working folder."""
    for seed, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        for number in range(2):
            paragraphs = write_text(tmp_path / "words.txt", seed=10 * seed + number).read_text().split("\n\n")
            lines = "".join(json.dumps({"text": paragraph}) + "\n" for paragraph in paragraphs)
            (tmp_path / name / f"{number}.jsonl").write_text(lines)
    return write_text(tmp_path / "held-out.txt", seed=99)


STREAM = [
    *BYTES,
    "data.source=one",
    "data.validation=held-out.txt",
    "data.streaming=true",
    "data.lanes=2",
    "data.mixture=[{source: two, weight: 0.5}]",
    "training.steps=6",
    "training.checkpoint_every=2",
]


def test_a_stopped_run_on_streams_ends_as_if_it_had_not_stopped(home, shards, monkeypatch):
    succeeds("train", "mdlm-file", *STREAM)
    _, folder = newest(home)
    whole, losses = weights(folder), [line.get("loss") for line in folder.metrics()]

    taken, read = [], StreamReading.__next__

    def stopping(self):
        taken.append(self)
        if len(taken) == 6:
            raise RunError("the network is gone")
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(StreamReading, "__next__", stopping)
        assert "the network is gone" in refused("train", "mdlm-file", *STREAM, code=1)
    assert newest(home)[0].status == "failed"
    succeeds("train", "--resume", "last")
    record, folder = newest(home)
    assert record.lineage == [{"how": "resumed", "from": f"{record.id}/checkpoints/step-4"}]
    assert weights(folder) == whole
    assert [line.get("loss") for line in folder.metrics()] == losses
    figures = succeeds("evaluate", "last", "--json").objects
    assert all(figure["trivial"] for figure in figures)


def test_a_shard_changed_behind_a_stopped_runs_back_is_refused(home, shards, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("remask.trainer.Run._finish", lambda self: (_ for _ in ()).throw(RunError("stopped")))
        refused("train", "mdlm-file", *STREAM, code=1)
    path = tmp_path / "two" / "1.jsonl"
    path.write_text(path.read_text().replace("the", "teh", 1))
    assert "has changed since it began" in refused("train", "--resume", "last")


def test_a_mixture_of_tokenized_texts_trains_and_its_tokenizer_knows_all_of_them(home, shards, tmp_path):
    (tmp_path / "greek.txt").write_text("αβγδε ζηθικ λμνξο " * 50)
    other = "data.mixture=[{source: greek.txt, weight: 3}, {source: two}]"
    succeeds("train", "mdlm-file", *BYTES, "tokenizer.kind=character", "data.source=one", other)
    record, folder = newest(home)
    assert record.status == "finished"
    assert "λ" in (folder.model_path / "tokenizer" / "tokenizer_config.json").read_text().encode().decode(
        "unicode_escape"
    )
    assert "bits_per_byte" in [figure["name"] for figure in succeeds("evaluate", "last", "--json").objects]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.validation=null"], "data.streaming reads all of one for training: name held-out text with"),
        (["data.validation=one/1.jsonl"], "one/1.jsonl is also one of the files streamed for training; move it"),
        (["data.mixture=[{source: one}]"], "data.mixture: one is given twice"),
        (["data.mixture=[{source: held-out.txt}]"], "data.mixture: held-out.txt is given twice"),
        (["data.mixture=[{source: three}]"], "there is no file or folder 'three'"),
    ],
)
def test_sources_that_do_not_go_together_are_refused_before_a_run_exists(changes, message, home, shards):
    assert message in refused("train", "mdlm-file", *STREAM, *changes)
    assert not list(home.glob("*/recipe.yaml"))
