"""Processes: how they learn their place, meet and talk, and what they say when something is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch._C._distributed_c10d import HashStore

from remask.errors import RunError, UserError
from remask.parallel import ALONE, Launch, joined, launched, local_device, meet
from several import free_port

FOUR = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
ADDRESS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_without_a_word_in_the_environment_there_is_one_process():
    assert launched({"PATH": "/bin"}) == Launch(rank=0, size=1, local_rank=0, local_size=1)


def test_torchruns_environment_is_read():
    assert launched({**FOUR, **ADDRESS}) == Launch(rank=3, size=4, local_rank=1, local_size=2)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "4"}, r"WORLD_SIZE given in the environment without RANK and LOCAL_RANK"),
        ({**FOUR, **ADDRESS, "RANK": "-1"}, r"RANK=-1 in the environment is no whole number"),
        ({**FOUR, **ADDRESS, "WORLD_SIZE": "many"}, r"WORLD_SIZE=many in the environment is no whole number"),
        ({**FOUR, **ADDRESS, "RANK": "4"}, r"RANK=4, WORLD_SIZE=4, .* do not fit together"),
        ({**FOUR, **ADDRESS, "LOCAL_RANK": "2"}, r"LOCAL_RANK=2, LOCAL_WORLD_SIZE=2 .* do not fit together"),
        (FOUR, r"WORLD_SIZE=4 in the environment without MASTER_ADDR and MASTER_PORT"),
        (
            {"ACCELERATE_MIXED_PRECISION": "no", **ADDRESS},
            r"accelerate launch was asked for several processes and started one",
        ),
    ],
)
def test_nonsense_in_the_environment_is_one_line_that_says_how_to_start(environment, words):
    with pytest.raises(UserError, match=words + r".*torchrun --nproc-per-node") as caught:
        launched(environment)
    assert "\n" not in str(caught.value)


def several(count: int, local: int) -> Launch:
    return Launch(rank=0, size=count, local_rank=local, local_size=count)


def test_one_process_gets_the_device_that_was_named():
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert local_device(torch.device(name), Launch()) == torch.device(name)


def test_of_several_processes_each_gets_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [local_device(torch.device("cuda"), several(2, k)).index for k in (0, 1)] == [0, 1]
    assert local_device(torch.device("cpu"), several(2, 1)) == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda:0", r"device=cuda:0 names one GPU for 3 processes. Set device=cuda"),
        ("cuda", r"3 processes were started on a machine with 2 GPUs. Start torchrun --nproc-per-node 2"),
        ("mps", r"device=mps works for one process, and 3 were started"),
    ],
)
def test_processes_that_would_share_a_device_are_refused(monkeypatch, device, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=words):
        local_device(torch.device(device), several(3, 0))


def test_one_process_alone_talks_to_itself():
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(ALONE.add(values), values)
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert (ALONE.share({"a": (1,)}), ALONE.gather("x"), ALONE.on_main(lambda: 3)) == ({"a": (1,)}, ["x"], 3)
    with pytest.raises(UserError, match="mine"):
        ALONE.together(fails)


def fails() -> None:
    raise UserError("mine")


def test_one_process_joins_nobody(monkeypatch):
    for name in (*FOUR, *ADDRESS):
        monkeypatch.delenv(name, raising=False)
    with joined(torch.device("cpu")) as world:
        assert world is ALONE
        assert not dist.is_initialized()


def test_fewer_processes_than_world_size_says_are_noticed(monkeypatch):
    """One process of two: it waits as long as it was told to, then says so in one line."""
    for name, value in {**several_environment(0, 2), "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(RunError, match=r"^WORLD_SIZE is 2, but .*processes came within 0.5 s") as caught,
        joined(torch.device("cpu"), patience=0.5),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert not dist.is_initialized()


def several_environment(rank: int, size: int) -> dict[str, str]:
    return {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{size}", **ADDRESS}


def test_a_rank_that_two_processes_have_is_refused():
    store = HashStore()
    meet(store, Launch(), patience=1.0, identity="one")
    with pytest.raises(RunError, match="two processes have RANK=0"):
        meet(store, Launch(), patience=1.0, identity="other")


def test_processes_that_have_met_may_meet_again_and_find_nothing_left_over():
    store = HashStore()
    for _ in range(2):
        part = meet(store, Launch(), patience=0.1, identity="one")
        assert not part.check(["left over"])
        part.set("left over", "yes")


def test_processes_that_do_not_come_are_counted():
    with pytest.raises(RunError, match=r"WORLD_SIZE is 3, but 1 processes came within 0.1 s"):
        meet(HashStore(), several(3, 0), patience=0.1, identity="one")


# --- three processes, each a fork of one script -----------------------------------------------------------------


def talk(world) -> dict:
    """What three processes hear of each other."""
    numbers = torch.tensor([0.1, 1e-9, world.rank], dtype=torch.float64) * (world.rank + 1)
    kept = numbers.clone()
    heard = {
        "place": [world.rank, world.size, world.local_rank, world.is_main],
        "sum": world.add(numbers).tolist(),
        "narrow": world.add(torch.tensor([1.5], dtype=torch.float32)).tolist(),
        "untouched": torch.equal(numbers, kept),
        "any": [world.any(world.rank == 2), world.any(False)],
        "share": world.share({"from": world.rank, "text": "é" * world.rank}),
        "gather": world.gather([world.rank, "a" * 1000 * world.rank, None]),
        "on_main": world.on_main(lambda: f"done by {world.rank}"),
    }
    heard["users"] = said(lambda: world.together(lambda: raise_on(world, 1, UserError("wrong text"))))
    heard["runs"] = said(lambda: world.together(lambda: raise_on(world, 2, OSError("disk\nfull"))))
    heard["mains"] = said(lambda: world.on_main(lambda: raise_on(world, 0, RunError("no folder"))))
    world.wait()
    if world.rank == 2:
        os._exit(0 * write_and_leave(heard))
    heard["gone"] = said(lambda: [world.add(torch.zeros(1)) for _ in range(100)])
    return heard


def write_and_leave(heard) -> int:
    Path(sys.argv[1], "2.json").write_text(json.dumps(heard))
    return 0


def raise_on(world, rank: int, error: Exception) -> str:
    if world.rank == rank:
        raise error
    return "fine"


def said(work) -> list[str]:
    try:
        work()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


@pytest.fixture(scope="module")
def heard(tmp_path_factory) -> list[dict]:
    """By rank, what `talk` gave."""
    folder = tmp_path_factory.mktemp("talk")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_process_knows_its_place(heard):
    assert [one["place"] for one in heard] == [[0, 3, 0, True], [1, 3, 1, False], [2, 3, 2, False]]


def test_sums_are_the_same_bits_everywhere_and_leave_their_parts_alone(heard):
    assert heard[0]["sum"] == heard[1]["sum"] == heard[2]["sum"]
    assert heard[0]["sum"] == pytest.approx([0.6, 6e-9, 8.0], rel=1e-15)
    assert [one["narrow"] for one in heard] == [[4.5]] * 3
    assert all(one["untouched"] for one in heard)


def test_what_one_knows_all_know(heard):
    for one in heard:
        assert one["any"] == [True, False]
        assert one["share"] == {"from": 0, "text": ""}
        assert one["gather"] == [[0, "", None], [1, "a" * 1000, None], [2, "a" * 2000, None]]
        assert one["on_main"] == "done by 0"


def test_a_failure_of_one_process_is_everyones_at_once(heard):
    assert [one["users"] for one in heard] == [["UserError", "wrong text"]] * 3
    assert [one["runs"] for one in heard] == [["RunError", "disk"], ["RunError", "disk"], ["OSError", "disk\nfull"]]
    assert [one["mains"] for one in heard] == [["RunError", "no folder"]] * 3


def test_a_process_that_has_gone_is_missed_and_not_waited_for(heard):
    words = "another process of this run has stopped; its own message says why"
    assert [one["gone"] for one in heard[:2]] == [["RunError", words]] * 2


if __name__ == "__main__":
    from several import in_processes

    print(json.dumps(in_processes(3, talk, folder=Path(sys.argv[1]))))
