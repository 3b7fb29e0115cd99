"""`remask track`: a run's figures for a tracker, afterwards."""

import pytest
from command import newest, refused, succeeds

from remask.runs import Registry


def test_a_finished_runs_figures_go_to_tensorboard_and_again_without_doubling(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record, folder = newest(trained)
    lines = folder.metrics()
    for _ in range(2):
        out = succeeds("track", "last", "--to", "tensorboard").out
        assert out.startswith(f"tensorboard: {len(lines)} lines of {record.id}")
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    expected = [line["bits_per_byte"] for line in lines if line["kind"] == "validation"]
    assert [event.value for event in events.Scalars("validation/bits_per_byte")] == pytest.approx(expected)
    assert set(record.trivial) == {tag.split("/")[-1] for tag in events.Tags()["scalars"] if "trivial/bits" in tag}


def test_mistakes_are_said_in_one_line(trained):
    assert "wandb" in refused("track", "last", "--to", "wandbb")
    assert "--to" in refused("track", "last")
    assert "tracking.project" in refused("track", "last", "--to", "tensorboard", "--project", "a/b")
    assert "no run" in refused("track", "nothing", "--to", "tensorboard")
    record, folder = newest(trained)
    with folder.lock():
        Registry(trained).update(record.id, status="running")
        assert "is training" in refused("track", "last", "--to", "tensorboard")


def test_a_run_without_figures_is_no_run_to_track(trained):
    _, folder = newest(trained)
    folder.metrics_path.unlink()
    assert "has no metrics" in refused("track", "last", "--to", "tensorboard")
