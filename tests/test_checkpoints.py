"""Checkpoints: exact resume, and what damage, misuse and a full disk do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from remask.checkpoints import Checkpoints, DamagedCheckpoint, load_checkpoint
from remask.errors import RunError, UserError
from tiny import differing, everything, pattern_batches, run_steps, tiny_state

FILES = ["network.safetensors", "average.safetensors", "optimizer.safetensors", "state.json"]


def saved_twice(folder: Path, **state) -> Checkpoints:
    """Checkpoints of steps 2 and 4."""
    checkpoints = Checkpoints(folder, keep=2)
    training = tiny_state(**state)
    for step in (2, 4):
        run_steps(training, step)
        checkpoints.save(training, extra={"seconds": 1.5 * step})
    return checkpoints


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_going_on_from_a_checkpoint_is_never_having_stopped(tmp_path, optimizer, dropout):
    """Bit for bit: weights, average and optimiser state, with dropout too."""
    straight = tiny_state(optimizer=optimizer, dropout=dropout)
    steps = run_steps(straight, 7)
    stopped = tiny_state(optimizer=optimizer, dropout=dropout)
    run_steps(stopped, 3)
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(stopped, extra={})
    resumed = tiny_state(optimizer=optimizer, dropout=dropout, seed=99)
    checkpoints.load_newest(resumed)
    assert (resumed.step, resumed.tokens) == (stopped.step, stopped.tokens)
    assert differing(everything(resumed), everything(stopped)) == []
    later = run_steps(resumed, 7)
    assert [step.loss for step in later] == [step.loss for step in steps[3:]]
    assert differing(everything(resumed), everything(straight)) == []
    assert resumed.tokens == straight.tokens


def test_loading_puts_nothing_of_the_old_state_into_the_new(tmp_path):
    """A state that has trained elsewhere ends exactly as a fresh one does."""
    checkpoints = saved_twice(tmp_path)
    used, fresh = tiny_state(), tiny_state()
    run_steps(used, 3, batches=pattern_batches(seed=5))
    checkpoints.load_newest(used)
    checkpoints.load_newest(fresh)
    assert differing(everything(used), everything(fresh)) == []


def test_extra_values_come_back(tmp_path):
    extra = saved_twice(tmp_path).load_newest(tiny_state())
    assert extra == {"seconds": 6.0, "damaged": []}


def test_a_checkpoint_is_safetensors_and_json_and_nothing_else(tmp_path):
    newest = saved_twice(tmp_path).list()[-1]
    assert sorted(path.name for path in newest.iterdir()) == sorted(FILES)


def test_the_oldest_are_removed_beyond_the_number_kept(tmp_path):
    state = tiny_state()
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 10):
        run_steps(state, step)
        checkpoints.save(state, extra={})
    assert [path.name for path in checkpoints.list()] == ["step-2", "step-10"]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints = saved_twice(tmp_path)
    state = tiny_state()
    checkpoints.load_newest(state)
    checkpoints.save(state, extra={"seconds": 99.0})
    assert checkpoints.load_newest(tiny_state())["seconds"] == 99.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-2", "step-4"]


def test_a_writer_killed_between_two_renames_leaves_the_checkpoint_that_was_being_replaced(tmp_path):
    """Saving a step again puts its older folder aside first: there it is found, and the next save clears it away."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    state = tiny_state()
    checkpoints.save(state, extra={"seconds": 1.0})
    (tmp_path / "step-0").rename(tmp_path / ".step-0.replaced")
    assert checkpoints.load_newest(tiny_state())["seconds"] == 1.0
    checkpoints.save(state, extra={"seconds": 2.0})
    assert [path.name for path in tmp_path.iterdir()] == ["step-0"]
    assert checkpoints.load_newest(tiny_state())["seconds"] == 2.0


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * 0.7)] ^= 1
    path.write_bytes(bytes(data))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit, remove])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_passed_over_for_the_older_one(tmp_path, damage, name):
    checkpoints = saved_twice(tmp_path)
    damage(tmp_path / "step-4" / name)
    state = tiny_state()
    extra = checkpoints.load_newest(state)
    assert state.step == 2
    assert extra["seconds"] == 3.0
    assert len(extra["damaged"]) == 1
    assert extra["damaged"][0].startswith("step-4 (")
    assert "\n" not in extra["damaged"][0]


@pytest.mark.parametrize("position", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_no_changed_digit_of_the_record_goes_unnoticed(tmp_path, position):
    """The step, the token count and the extra values are under a digest too."""
    folder = saved_twice(tmp_path).list()[-1]
    text = (folder / "state.json").read_text()
    digits = [i for i, character in enumerate(text) if character.isdigit()]
    place = digits[int(position * len(digits))]
    (folder / "state.json").write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(folder, tiny_state())


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"record": {}, "digest": ""}', '{"record": [], "digest": 1}'])
def test_a_record_of_another_form_is_damage(tmp_path, content):
    folder = saved_twice(tmp_path).list()[-1]
    (folder / "state.json").write_text(content)
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(folder, tiny_state())


def test_a_damaged_checkpoint_leaves_the_state_as_it_was(tmp_path):
    folder = saved_twice(tmp_path).list()[-1]
    flip_a_bit(folder / "optimizer.safetensors")
    state = tiny_state(seed=3)
    before = everything(state)
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(folder, state)
    assert differing(everything(state), before) == []


def test_when_all_are_damaged_one_line_says_which_and_what_to_do(tmp_path):
    checkpoints = saved_twice(tmp_path)
    for step in (2, 4):
        truncate(tmp_path / f"step-{step}" / "network.safetensors")
    with pytest.raises(
        UserError, match=r"^no whole checkpoint in .*step-4 .*step-2 .*Train again from the start$"
    ) as caught:
        checkpoints.load_newest(tiny_state())
    assert "\n" not in str(caught.value)


def test_a_folder_without_checkpoints_says_so(tmp_path):
    (tmp_path / "step-final").mkdir()
    (tmp_path / ".step-3.partial").mkdir()
    assert Checkpoints(tmp_path, keep=1).list() == []
    with pytest.raises(UserError, match="holds no checkpoint to resume from"):
        Checkpoints(tmp_path, keep=1).load_newest(tiny_state())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"vocab_size": 9},
            r"embedding.weight has shape \[7, 16\] there, \[9, 16\] in this recipe \(another vocabulary\)",
        ),
        ({"width": 32}, r"has shape \[.*\] there, \[.*\] in this recipe"),
        ({"optimizer": "muon"}, r"the optimiser was AdamW there, and is Muon and AdamW in this recipe"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused_in_one_line(tmp_path, other, words):
    checkpoints = saved_twice(tmp_path)
    state = tiny_state(**other)
    before = everything(state)
    with pytest.raises(UserError, match=words) as caught:
        checkpoints.load_newest(state)
    assert "\n" not in str(caught.value)
    assert "Use the recipe it was trained with" in str(caught.value)
    assert differing(everything(state), before) == [], "a refused checkpoint must not be half loaded"


def test_adamw_does_not_take_up_muons_state(tmp_path):
    checkpoints = saved_twice(tmp_path, optimizer="muon")
    with pytest.raises(UserError, match="the optimiser was Muon and AdamW there, and is AdamW in this recipe"):
        checkpoints.load_newest(tiny_state())


def test_a_network_with_other_parameters_is_refused(tmp_path):
    checkpoints = saved_twice(tmp_path)
    state = tiny_state()
    state.network.tie_head()
    with pytest.raises(UserError, match=r"weights of another network \(head.weight is in only one of the two\)"):
        checkpoints.load_newest(state)


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from tiny import run_steps, tiny_state
from remask.checkpoints import Checkpoints
from remask.errors import RunError
state = tiny_state()
checkpoints = Checkpoints(Path(sys.argv[2]), keep=1)
run_steps(state, 1)
checkpoints.save(state, extra={})
run_steps(state, 2)
sys.dont_write_bytecode = True  # under the limit compiled modules would be cut short
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        checkpoints.save(state, extra={})
    except RunError as error:
        print("refused:", error)
    print(sorted(path.name for path in checkpoints.folder.iterdir()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_write_that_fails_half_way_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    """A file size limit stands in for a full disk: at the first byte, in the first file, and in a later, larger one."""
    limits = ["0", "500", "20000"]
    command = [sys.executable, "-c", FULL_DISK, str(Path(__file__).parent), str(tmp_path), *limits]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(limits)
    for refusal, left in zip(lines[::2], lines[1::2], strict=True):
        assert refusal.startswith("refused: the checkpoint of step 2 could not be written to")
        assert left == "['step-1']"
    state = tiny_state()
    Checkpoints(tmp_path, keep=1).load_newest(state)
    assert state.step == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="could not be written") as caught:
        Checkpoints(tmp_path / "file" / "checkpoints", keep=1).save(tiny_state(), extra={})
    assert "\n" not in str(caught.value)


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    leftover = tmp_path / ".step-3.partial"
    leftover.mkdir()
    (leftover / "network.safetensors").write_bytes(b"half")
    Checkpoints(tmp_path, keep=1).save(tiny_state(), extra={})
    assert [path.name for path in tmp_path.iterdir()] == ["step-0"]


def test_the_record_is_readable_json(tmp_path):
    folder = saved_twice(tmp_path).list()[-1]
    record = json.loads((folder / "state.json").read_text())["record"]
    assert (record["step"], record["optimizers"], record["extra"]) == (4, ["AdamW"], {"seconds": 6.0})
    assert set(record["digests"]) == {"network", "average", "optimizer"}
    assert torch.is_tensor(everything(tiny_state())["network.head.weight"])
