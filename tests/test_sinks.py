"""Trackers hold exactly the lines of metrics.jsonl: live, replayed, after a kill, and when they fail."""

import contextlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from remask.book import RunBook
from remask.config import schema
from remask.config.build.tracking import build_sinks, check_tracking, open_sink
from remask.errors import UserError
from remask.runs import Registry, RunFolder, RunRecord
from remask.sinks import Guarded, Naming
from remask.sinks.base import preformatted
from remask.sinks.wandb import WeightsAndBiases, wandb_id

RUN = "tiny_D8L1_20260101_000000"
TRIVIAL = {"kind": "trivial", "step": 0, "bits_per_byte": {"uniform": 8.0, "byte 1-gram": 4.5}}
SAMPLE = "two\nlines, *stars* and `ticks`"
LINES = [
    TRIVIAL,
    {"kind": "train", "step": 10, "loss": 5.25, "learning_rate": 0.001, "seconds": 1.5},
    {"kind": "train", "step": 20, "loss": 4.5, "learning_rate": 0.001, "seconds": 3.0},
    {"kind": "validation", "step": 20, "bits_per_byte": 6.5, "stderr": None, "rows": 4},
    {"kind": "sample", "step": 20, "text": SAMPLE},
    {
        **{"kind": "alarm", "alarm": "explosion", "step": 20, "name": "gradient explosion"},
        **{"evidence": "norm 40 is 35 times the median", "cause": "a high rate", "remedy": "a lower rate"},
    },
]
ALARM = (
    "gradient explosion at step 20. evidence: norm 40 is 35 times the median; cause: a high rate; remedy: a lower rate"
)
FIGURES = {
    (0, "trivial/bits_per_byte/uniform"): 8.0,
    (0, "trivial/bits_per_byte/byte 1-gram"): 4.5,
    (10, "train/loss"): 5.25,
    (10, "train/learning_rate"): 0.001,
    (10, "train/seconds"): 1.5,
    (20, "train/loss"): 4.5,
    (20, "train/learning_rate"): 0.001,
    (20, "train/seconds"): 3.0,
    (20, "validation/bits_per_byte"): 6.5,
    (20, "validation/stderr"): math.nan,
    (20, "validation/rows"): 4.0,
    (20, "trivial/bits_per_byte/uniform"): 8.0,
    (20, "trivial/bits_per_byte/byte 1-gram"): 4.5,
}
TEXTS = {(20, "sample/text"): SAMPLE, (20, "alarm/explosion"): ALARM}

Figures = list[tuple[tuple[int, str], float]]
Texts = list[tuple[tuple[int, str], str]]


@pytest.fixture(scope="module", autouse=True)
def trackers_apart(tmp_path_factory):
    """Trackio reads its folder's place when it is first imported, W&B its settings; neither may reach the user's."""
    home = tmp_path_factory.mktemp("trackers")
    with pytest.MonkeyPatch.context() as patch:
        if "trackio" not in sys.modules:
            patch.setenv("TRACKIO_DIR", str(home / "trackio"))
        for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(home / "wandb"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def spec(*names: str, **keys: str) -> schema.TrackingSpec:
    return schema.TrackingSpec.model_validate({"sinks": names, **keys})


def opened(name: str, folder: Path, known: list, *, project: str):
    return open_sink(
        name, spec(name, project=project), run_id=RUN, folder=folder, recipe={"seed": 1, "data": {"a": 2}}, known=known
    )


# ── reading each tracker back ──────────────────────────────────────────────────────────────────────────────────


def plain_text(block: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in block.split("\n"))


def in_tensorboard(folder: Path, project: str) -> tuple[Figures, Texts]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    del project
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    figures = [((e.step, tag), e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    texts = [
        ((e.step, tag.removesuffix("/text_summary")), plain_text(e.tensor_proto.string_val[0].decode()))
        for tag in events.Tags()["tensors"]
        if tag.split("/")[0] in ("sample", "alarm")
        for e in events.Tensors(tag)
    ]
    return figures, texts


def in_trackio(folder: Path, project: str) -> tuple[Figures, Texts]:
    from trackio.sqlite_storage import SQLiteStorage

    del folder
    figures, texts = [], []
    for row in SQLiteStorage.get_logs(project, RUN):
        step = row.pop("step")
        del row["timestamp"]
        for name, value in row.items():
            if isinstance(value, dict):
                texts.append(((step, name), plain_text(value["_value"])))
            else:
                figures.append(((step, name), value))
    return figures, texts


def in_wandb(folder: Path, project: str) -> tuple[Figures, Texts]:
    import wandb

    wandb.teardown()  # its service writes the file to its end a moment after the run is closed
    del project
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    figures, texts = [], []
    for record in wandb_records(path):
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        own = {name: value for name, value in items.items() if not name.startswith("_") and name != "step"}
        for name, value in own.items():
            where = (items["step"], name)
            if isinstance(value, str) and value != "NaN":
                texts.append((where, value))
            else:
                figures.append((where, float(value)))
    return figures, texts


def wandb_records(path: Path) -> list:
    """The records of a .wandb file, which is a LevelDB log: blocks of 32 KiB of pieces with 7 bytes of header each."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, records, piece, place = path.read_bytes(), [], b"", 7
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        piece += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record()
            record.ParseFromString(piece)
            records.append(record)
            piece = b""
    return records


READERS = {"tensorboard": in_tensorboard, "trackio": in_trackio, "wandb": in_wandb}


def assert_holds_each_line_once(name: str, folder: Path, *, project: str) -> None:
    figures, texts = READERS[name](folder, project)
    assert sorted(place for place, _ in figures) == sorted(FIGURES)
    for place, value in figures:
        assert value == pytest.approx(FIGURES[place], rel=1e-6, nan_ok=True), place  # TensorBoard keeps float32
    assert sorted(texts) == sorted(TEXTS.items())


# ── lines in a tracker's words ─────────────────────────────────────────────────────────────────────────────────


def test_a_line_has_one_entry_whether_it_is_live_or_read_back(tmp_path):
    folder = RunFolder.create(tmp_path, RUN)
    live = {"kind": "train", "step": 3, "loss": math.nan, "terms": {"a": 1.0, "b": math.inf}, "list": [1, 2]}
    folder.append_metrics(live)
    (again,) = folder.metrics()
    one, two = Naming().entry(live), Naming().entry(again)
    assert one.texts == two.texts == {"train/list": "[1, 2]"}
    assert repr(one.figures) == repr(two.figures)
    assert repr(one.figures) == "{'train/loss': nan, 'train/terms/a': 1.0, 'train/terms/b': nan}"


def test_every_validation_repeats_the_trivial_values_so_that_they_are_lines():
    naming = Naming()
    assert naming.entry(TRIVIAL).figures == {
        "trivial/bits_per_byte/uniform": 8.0,
        "trivial/bits_per_byte/byte 1-gram": 4.5,
    }
    entry = naming.entry({"kind": "validation", "step": 7, "bits_per_byte": 6.0})
    assert entry.figures["trivial/bits_per_byte/uniform"] == 8.0
    assert "trivial/bits_per_byte/uniform" not in naming.entry({"kind": "train", "step": 8, "loss": 1.0}).figures


def test_a_text_keeps_its_characters_under_markdown():
    assert plain_text(preformatted(SAMPLE)) == SAMPLE


# ── each tracker holds each line once ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_holds_each_line_once_with_its_value(tmp_path, name):
    sink = opened(name, tmp_path, LINES[:1], project=f"live-{name}")
    for line in LINES[1:]:
        sink.write(line)
    sink.close("finished")
    assert_holds_each_line_once(name, tmp_path, project=f"live-{name}")


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_lines_of_a_try_that_was_rolled_back_are_gone_and_others_are_there_once(tmp_path, name):
    project = f"again-{name}"
    first = opened(name, tmp_path, LINES[:1], project=project)
    for line in [LINES[1], {"kind": "train", "step": 20, "loss": 99.0}, {"kind": "train", "step": 30, "loss": 98.0}]:
        first.write(line)
    first.close("interrupted")
    second = opened(name, tmp_path, LINES[:2], project=project)
    for line in LINES[2:]:
        second.write(line)
    second.close("finished")
    assert_holds_each_line_once(name, tmp_path, project=project)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from remask.runs import Registry, RunFolder, RunRecord
from test_sinks import LINES, opened
folder = RunFolder(Path(sys.argv[2]))
sinks = [opened(name, folder.path, [], project=f"killed-{name}") for name in ("tensorboard", "trackio", "wandb")]
for line in LINES[:3]:
    folder.append_metrics(line)
    for sink in sinks:
        sink.write(line)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_was_killed_and_resumed_has_every_line_once_in_every_tracker(tmp_path):
    folder = RunFolder.create(tmp_path, RUN)
    here = Path(__file__).parent
    ended = subprocess.run([sys.executable, "-c", KILLED, str(here), str(folder.path)], check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    folder.trim_metrics(after_step=10)
    known = folder.metrics()
    assert [line["step"] for line in known] == [0, 10]
    for name in READERS:
        sink = opened(name, folder.path, known, project=f"killed-{name}")
        for line in LINES[2:]:
            sink.write(line)
        sink.close("finished")
        assert_holds_each_line_once(name, folder.path, project=f"killed-{name}")


def test_an_id_is_shortened_for_wandb_without_making_two_runs_one():
    long = "a" * 80 + "_D256L4_20260101_000000"
    assert wandb_id(RUN) == RUN
    assert len(wandb_id(long)) == 64
    assert wandb_id(long) != wandb_id(long.replace("000000", "000001"))


def test_a_wandb_server_gets_what_a_crash_lost_and_nothing_twice(tmp_path, monkeypatch):
    sent: list[tuple[int, dict]] = []
    run = SimpleNamespace(
        starting_step=2,
        url="https://wandb.ai/me/p/runs/x",
        define_metric=lambda *names, **options: None,
        log=lambda row, *, step, commit: sent.append((step, row)),
        finish=lambda exit_code: None,
    )
    asked = {}
    fake = SimpleNamespace(Settings=lambda **options: options, init=lambda **options: asked.update(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    sink = WeightsAndBiases(RUN, project="p", folder=tmp_path, mode="online", config={}, known=LINES[:4])
    sink.write(LINES[4])
    assert asked["resume"] == "allow"
    assert asked["id"] == RUN
    assert sink.link == ("wandb", "https://wandb.ai/me/p/runs/x")
    assert [step for step, _ in sent] == [2, 3, 4]
    assert sent[0][1]["train/loss"] == 4.5
    # the server is ahead: lines after the checkpoint were sent, then made anew; what is new is never lost
    sent.clear()
    run.starting_step = 5
    WeightsAndBiases(RUN, project="p", folder=tmp_path, mode="online", config={}, known=LINES[:2]).write(LINES[2])
    assert [(step, row["train/loss"]) for step, row in sent] == [(5, 4.5)]


# ── failures ───────────────────────────────────────────────────────────────────────────────────────────────────


class Failing:
    """A tracker whose network is gone."""

    link = None

    def __init__(self, *, at: str) -> None:
        self.at, self.tries = at, 0

    def write(self, record) -> None:
        self.tries += 1
        if self.at == "write":
            raise ConnectionError("no route\nto the server")

    def close(self, status) -> None:
        if self.at == "close":
            raise TimeoutError


def test_a_failing_tracker_is_said_once_in_one_line_and_stops_nothing():
    said: list[str] = []
    failing = Failing(at="write")
    guarded = Guarded("wandb", lambda: failing, warn=said.append, remedy="do this")
    for line in LINES:
        guarded.write(line)
    guarded.close("finished")
    assert said == [
        "tracking by wandb stopped: no route to the server. The run goes on, metrics.jsonl has it all; do this"
    ]
    assert failing.tries == 1


def test_a_tracker_that_fails_at_its_end_or_its_beginning_is_said_too():
    said: list[str] = []
    Guarded("x", lambda: Failing(at="close"), warn=said.append, remedy="r").close("finished")

    def begin() -> Failing:
        raise OSError(28, "No space left on device")

    guarded = Guarded("y", begin, warn=said.append, remedy="r")
    guarded.write(LINES[1])
    guarded.close("finished")
    assert ["TimeoutError" in said[0], "No space left" in said[1], len(said)] == [True, True, 2]


def test_a_folder_that_cannot_be_written_ends_the_tracking_and_not_the_run(tmp_path):
    said: list[str] = []
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    (sink,) = build_sinks(spec("tensorboard"), run_id=RUN, folder=tmp_path, recipe={}, known=LINES, warn=said.append)
    sink.write(LINES[1])
    assert sink.link is None
    sink.close("finished")
    assert len(said) == 1
    assert said[0].endswith(f"afterwards: remask track {RUN} --to tensorboard")


def test_a_tracker_named_twice_is_fed_once(tmp_path):
    sinks = build_sinks(
        spec("tensorboard", "tensorboard"), run_id=RUN, folder=tmp_path, recipe={}, known=LINES, warn=pytest.fail
    )
    assert len(sinks) == 1
    sinks[0].close("finished")


@pytest.mark.parametrize("found", [None, SimpleNamespace(origin=None)], ids=["nothing", "a folder of that name"])
def test_a_missing_package_is_a_users_mistake_that_names_the_extra(monkeypatch, found):
    monkeypatch.setattr("remask.config.build.tracking.find_spec", lambda name: found)
    with pytest.raises(UserError, match=r"pip install 'remask\[trackio\]'"):
        check_tracking(spec("trackio"))


def test_a_project_name_that_a_tracker_would_refuse_is_refused():
    with pytest.raises(ValueError, match="project"):
        spec("tensorboard", project="a/b")


def test_online_without_a_login_is_a_users_mistake(monkeypatch):
    fake = SimpleNamespace(login=lambda **options: False)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("remask.config.build.tracking.find_spec", lambda name: SimpleNamespace(origin="here"))
    with pytest.raises(UserError, match="wandb login"):
        check_tracking(spec("wandb", mode="online"))
    check_tracking(spec("wandb", mode="offline"))


def test_trackio_stays_local_and_leaves_the_environment_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:1/")
    sink = opened("trackio", tmp_path, LINES, project="local")
    sink.close("finished")
    assert os.environ["TRACKIO_SERVER_URL"] == "http://127.0.0.1:1/"
    assert capsys.readouterr().out == ""
    assert_holds_each_line_once("trackio", tmp_path, project="local")


def test_the_recipe_stands_beside_the_figures(tmp_path):
    with contextlib.suppress(FileNotFoundError):
        opened("trackio", tmp_path, LINES[:1], project="config").close("finished")
    from trackio.sqlite_storage import SQLiteStorage

    config = SQLiteStorage.get_run_config("config", RUN)
    assert config is not None
    assert (config["seed"], config["data"]) == (1, {"a": 2})


@pytest.mark.parametrize("links", [{}, {"notes": "https://example.org"}])
def test_a_trackers_page_is_noted_in_the_runs_record_when_it_is_opened(tmp_path, links):
    folder = RunFolder.create(tmp_path, RUN)
    registry = Registry(tmp_path)
    created = "2026-01-01T00:00:00.000+00:00"
    record = RunRecord(id=RUN, recipe="tiny", family="token", seed=1, created=created, status="finished", links=links)
    page = SimpleNamespace(link=("wandb", "https://wandb.ai/me/p/runs/x"), close=lambda status: None)
    book = RunBook(
        folder=folder,
        registry=registry,
        record=registry.create(record),
        logged=lambda line: None,
        said=lambda line: None,
        open_sinks=lambda known: [page, SimpleNamespace(link=None, close=lambda status: None)],
    )
    book.open(step=0, trivial=dict(TRIVIAL))
    book.close("finished")
    assert registry.get(RUN).links == {**links, "wandb": "https://wandb.ai/me/p/runs/x"}
