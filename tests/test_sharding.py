"""Weights shared out over processes: the same training, the same checkpoints, the same saved model as on one."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from remask.checkpoints import Checkpoints
from remask.config.build import build_model
from remask.config.load import load_recipe
from remask.config.saved import load_model, save_model
from remask.data.batch import Batch
from remask.errors import RunError
from remask.guard import cautious
from remask.networks.mask_bias import MaskBias
from remask.optimisation import MovingAverage, gradient_norm, set_rate
from remask.parallel import ALONE
from remask.randomness import keyed_generator
from remask.sharding import Layered, is_sharded, own_range, own_rows, shard, whole
from remask.tokenizers import ByteTokenizer
from remask.training import TrainingState
from several import in_processes
from tiny import EXPERTS, pattern_batches, run_steps, tiny_network, tiny_optimizers

VOCABULARY, LENGTH, ROWS, STEPS, KEPT_STEP = 5, 6, 8, 5, 3
MATRIX = "network.network.head.weight"


# --- a training in float64, on one process or on several -----------------------------------------------------------


def fresh_state(kind: str, world, *, seed: int = 1) -> TrainingState:
    """A network of five tokens (over four processes one holds no row of it) with a bias that is written by hand."""
    network = MaskBias(tiny_network(vocab_size=VOCABULARY, seed=seed).double(), mask_id=4).double()
    shard(network, layers=network.repeated_layers(), world=world)
    return TrainingState(network, tiny_optimizers(network, kind), MovingAverage(network, decay=0.9))


def loss_of(network: nn.Module, ids: Tensor) -> Tensor:
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    logits = network(ids, torch.zeros(len(ids)), segments=everywhere.long(), positions=everywhere)
    return functional.cross_entropy(logits, ids.flip(1).flatten(), reduction="sum")


def train_to(state: TrainingState, last: int, world, *, micro: int = 2) -> list[float]:
    """Optimiser steps on this process's rows, in two micro-batches; gives the norm of each gradient."""
    norms = []
    while state.step < last:
        state.step += 1
        set_rate(state.optimizers, 1.0)
        ids = torch.randint(4, (ROWS, LENGTH), generator=keyed_generator("ids", state.step))
        own = ids[world.rank * ROWS // world.size : (world.rank + 1) * ROWS // world.size]
        for part in own.chunk(micro):
            (loss_of(state.network, part) * world.size / ids.numel()).backward()
        norm = gradient_norm(state.network.parameters())
        nn.utils.clip_grads_with_norm_(state.network.parameters(), 0.5, norm)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            state.network.get_parameter("mask_logit_bias").fill_(0.1 * state.step)
        state.average.update(state.network, step=state.step)
        norms.append(float(norm))
    return norms


def tensors_of(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of a state, whole."""
    found = {f"network.{name}": p.detach() for name, p in state.network.named_parameters()}
    found |= {f"average.{name}": value for name, value in state.average.average.items()}
    for i, optimizer in enumerate(state.optimizers):
        for k, slots in optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{i}.{k}.{key}": value for key, value in slots.items()}
    return {name: whole(value).clone() for name, value in found.items()}


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def farthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# --- what the processes look at ------------------------------------------------------------------------------------


def looks(world, folder: Path) -> dict:
    """All that two processes look at, by name."""
    return {
        "held": held(world),
        **{f"trained.{kind}": trained(world, kind, folder / kind) for kind in ("adamw", "muon")},
        "lent": lent(world),
        "overflow": overflow(world),
        "cached": cached(world),
        "saved": saved(world, folder / "model"),
        "copies": copies(world, folder / "copies"),
        "damaged": damaged(world, folder / "damaged"),
        "refused": refused(world, folder / "refused"),
        "experts": experts(world),
        "concepts": concepts(world),
    }


def held(world) -> dict:
    """How much of the weights is here."""
    network = fresh_state("adamw", world).network
    sharded = [p for p in network.parameters() if is_sharded(p)]
    return {
        "whole": [name for name, p in network.named_parameters() if not is_sharded(p)],
        "share": sum(own_rows(p).numel() for p in sharded) / sum(p.numel() for p in sharded),
        "ranges": all(
            torch.equal(own_rows(p), whole(p)[own_range(p).start : own_range(p).stop])
            for p in network.parameters()
            if is_sharded(p)
        ),
    }


def trained(world, kind: str, folder: Path) -> dict:
    """A sharded training against one of one process, and checkpoints that go from one to the other and back."""
    alone, sharded = fresh_state(kind, ALONE), fresh_state(kind, world)
    alone_norms = train_to(alone, STEPS, ALONE)
    norms = train_to(sharded, KEPT_STEP, world)
    checkpoints = Checkpoints(folder, keep=9)
    checkpoints.save(sharded, extra={"seconds": 1.5}, world=world)
    kept = tensors_of(sharded)
    norms += train_to(sharded, STEPS, world)
    plain = fresh_state(kind, ALONE, seed=9)
    extra = checkpoints.load_newest(plain)
    back = fresh_state(kind, world, seed=8)
    train_to(back, 1, world)  # a state that has trained elsewhere takes nothing of it along
    checkpoints.load_newest(back, world=world)
    again = tensors_of(back)
    train_to(back, STEPS, world)
    if world.is_main:
        Checkpoints(folder / "plain", keep=1).save(plain, extra={})
    world.wait()
    from_plain = fresh_state(kind, world, seed=7)
    Checkpoints(folder / "plain", keep=1).load_newest(from_plain, world=world)
    return {
        "files": sorted(path.name for path in (folder / f"step-{KEPT_STEP}").iterdir()),
        "extra": extra,
        "step": [plain.step, from_plain.step, back.step],
        "norms": [abs(a - b) for a, b in zip(norms, alone_norms, strict=True)],
        "from_one_process": farthest(tensors_of(sharded), tensors_of(alone)),
        "moved": farthest({"weight": tensors_of(sharded)[MATRIX]}, {"weight": kept[MATRIX]}),
        "read_by_one": differing(tensors_of(plain), kept),
        "read_again": differing(again, kept),
        "gone_on": differing(tensors_of(back), tensors_of(sharded)),
        "read_from_one": differing(tensors_of(from_plain), kept),
    }


def lent(world) -> dict:
    """What the network says with averaged weights, beside one process's."""
    sharded, alone = fresh_state("adamw", world), fresh_state("adamw", ALONE)
    train_to(sharded, 2, world)
    train_to(alone, 2, ALONE)
    ids = torch.arange(LENGTH)[None] % 4
    said = []
    with torch.no_grad():
        for state in (sharded, alone):
            before = float(loss_of(state.network, ids))
            with state.average.applied(state.network):
                averaged = float(loss_of(state.network, ids))
            said.append([before, averaged, float(loss_of(state.network, ids))])
    return {"sharded": said[0], "alone": said[1]}


def overflow(world) -> list[bool]:
    """Whether a loss scaler skips the step where one process alone overflows, and makes it where none does."""
    state = fresh_state("adamw", world)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    moved = []
    for overflows in (True, False):
        before = tensors_of(state)
        scaler.scale(loss_of(state.network, torch.zeros(2, LENGTH, dtype=torch.int64))).backward()
        if overflows and world.rank == 1:
            gradients = [p.grad for p in state.network.parameters() if p.grad is not None]
            own_rows(gradients[0])[0, 0] = torch.inf
        scaler.step(state.optimizers[0])
        scaler.update()
        state.optimizers[0].zero_grad()
        after = tensors_of(state)
        moved.append(any(not torch.equal(before[name], after[name]) for name in before))
    return moved


def cached(world) -> float:
    """How far logits read with a cache are from those of one process."""
    logits = []
    for company in (world, ALONE):
        network = tiny_network(vocab_size=VOCABULARY, causal=True)
        shard(network, layers=network.repeated_layers(), world=company)
        z = torch.arange(LENGTH)[None] % 4
        last = torch.arange(LENGTH)[None] == LENGTH - 1
        logits.append(
            network.resume(
                z,
                torch.zeros(1),
                segments=torch.ones_like(z),
                positions=last,
                cache=network.open_cache(LENGTH),
                known=LENGTH - 1,
            )
        )
    return float((logits[0] - logits[1]).abs().max())


def saved(world, folder: Path) -> dict:
    """A model of sharded weights on disk, read by one process."""
    size = ["network.width=16", "network.layers=1", "network.heads=2", "data.length=16", "tokenizer.kind=byte"]
    recipe, tokenizer = load_recipe("quickstart", size), ByteTokenizer()
    models = [build_model(recipe, tokenizer, device=torch.device("cpu")) for _ in range(2)]
    network = models[0].network
    assert isinstance(network, Layered)
    shard(network, layers=network.repeated_layers(), world=world)
    save_model(models[0], recipe, folder, world=world)
    read, _ = load_model(folder, device=torch.device("cpu"))
    own, other = (dict(model.network.named_parameters()) for model in (read, models[1]))
    return {"sharded": is_sharded(next(models[0].network.parameters())), "differing": differing(own, other)}


def copies(world, folder: Path) -> dict:
    """A checkpoint of copies of a network (DDP), read by other copies and by one process."""
    networks = [tiny_network(vocab_size=VOCABULARY, seed=seed).double() for seed in (1, 2, 3)]
    plain = [TrainingState(n, tiny_optimizers(n, "adamw"), MovingAverage(n, decay=0.9)) for n in networks]
    first, second = (
        TrainingState(nn.parallel.DistributedDataParallel(s.network), s.optimizers, s.average) for s in plain[:2]
    )
    ids = torch.arange(LENGTH)[None] % 4
    loss_of(first.network, ids).backward()
    first.optimizers[0].step()
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(first, extra={}, world=world)
    for state, company in ((second, world), (plain[2], ALONE)):
        checkpoints.load_newest(state, world=company)
    written, *read = map(tensors_of, plain)
    return {"copies": differing(written, read[0]), "one": differing(written, read[1])}


def checkpoints_of_two_steps(world, folder: Path) -> tuple[Checkpoints, TrainingState]:
    state, checkpoints = fresh_state("adamw", world), Checkpoints(folder, keep=2)
    for step in (1, 2):
        train_to(state, step, world)
        checkpoints.save(state, extra={}, world=world)
    return checkpoints, state


def damaged(world, folder: Path) -> dict:
    """A part that has changed on disk; and one that is not there at all."""
    checkpoints, _ = checkpoints_of_two_steps(world, folder)
    part = folder / "step-2" / "average-2-of-2.safetensors"
    seen = {}
    for name, damage in {"flipped": flip_a_bit, "gone": Path.unlink}.items():
        if world.is_main:
            damage(part)
        world.wait()
        state = fresh_state("adamw", world)
        seen[name] = [checkpoints.load_newest(state, world=world)["damaged"], state.step]
    return seen


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@contextmanager
def no_room(here: bool) -> Iterator[None]:
    """A file size limit stands in for a full disk, on which no compiled module is written: it would be cut short."""
    before, writes = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    if here:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes


def refused(world, folder: Path) -> dict:
    """One process's disk refuses, then the other's; then neither's."""
    checkpoints, state = checkpoints_of_two_steps(world, folder)
    train_to(state, 3, world)
    seen: dict = {"said": []}
    for full in (0, 1):
        with no_room(world.rank == full):
            try:
                checkpoints.save(state, extra={}, world=world)
            except RunError as error:
                seen["said"].append(str(error))
        world.wait()
        seen[f"left{full}"] = sorted(path.name for path in folder.iterdir())
        world.wait()
    checkpoints.save(state, extra={}, world=world)
    seen["left"] = sorted(path.name for path in folder.iterdir())
    return seen


def experts(world) -> dict:
    """A mixture of experts trained with copies or shares of its weights, against one process, balance and all."""

    def fresh(company) -> TrainingState:
        network = tiny_network(mlp=EXPERTS).double()
        shard(network, layers=network.repeated_layers(), world=company)
        return TrainingState(network, tiny_optimizers(network, "muon"), MovingAverage(network, decay=0.9))

    alone, copies, shares = fresh(ALONE), fresh(ALONE), fresh(world)
    copies.network = nn.parallel.DistributedDataParallel(copies.network)
    run_steps(alone, 4)
    seen: dict = {}
    for name, state in {"copies": copies, "shares": shares}.items():
        network = getattr(state.network, "module", state.network)
        own = ([step[world.rank]] for step in pattern_batches(micro=8 // world.size))
        run_steps(state, 4, batches=own, world=world, guard=cautious(network, steps=4))
        found = {key: whole(p.detach()) for key, p in network.named_parameters()}
        seen[name] = farthest(found, {key: p.detach() for key, p in alone.network.named_parameters()})
        biases = [key for key in found if key.endswith("balance_bias")]
        seen[name + " balance"] = all(torch.equal(found[key], alone.network.get_parameter(key)) for key in biases)
    return {**seen, "moved": max(float(found[key].abs().max()) for key in biases)}


def concepts(world) -> dict:
    """A network that is asked in two parts: its likelihood terms and gradients, shared out and on one process."""
    size = [
        "network.width=16",
        "network.heads=2",
        "network.concepts=3",
        "network.decoder_layers=1",
        "tokenizer.kind=byte",
    ]
    recipe = load_recipe("concept-diffusion", [*size, "data.length=12", "data.prefix=6"])
    ids = torch.arange(24).view(2, 12) % 7 + 97
    batch = Batch(
        ids=ids,
        segments=torch.ones_like(ids),
        targets=(torch.arange(12) >= 6).expand(2, -1),
        byte_lengths=torch.ones_like(ids),
        rows=torch.arange(2),
        global_size=2,
    )
    said, gradients = [], []
    for company in (world, ALONE):
        model = build_model(recipe, ByteTokenizer(), device=torch.device("cpu"))
        assert isinstance(model.network, Layered)
        shard(model.network, layers=model.network.repeated_layers(), world=company)
        with torch.no_grad():
            terms = model.objective.likelihood_terms(model.network, batch, generator=keyed_generator("noise"), draws=2)
        said.append(float(torch.stack([term.sum() for term in terms.values()]).sum()))
        model.objective(model.network, batch, generator=keyed_generator("noise")).nats.sum().backward()
        found = {name: p.grad for name, p in model.network.named_parameters() if p.grad is not None}
        gradients.append({name: whole(gradient) for name, gradient in found.items()})
    return {"said": said, "gradients": farthest(*gradients)}


def looks_of_four(world, folder: Path) -> dict:
    """What two processes wrote, read by four of which one holds no row of the vocabulary; and the other way."""
    seen = {}
    for kind in ("adamw", "muon"):
        state, plain = fresh_state(kind, world, seed=5), fresh_state(kind, ALONE, seed=6)
        checkpoints = Checkpoints(folder / kind, keep=9)
        checkpoints.load_newest(state, world=world)
        checkpoints.load_newest(plain)
        rows = len(own_range(state.network.get_parameter("network.embedding.weight")))
        read = differing(tensors_of(state), tensors_of(plain))
        train_to(state, STEPS, world, micro=1)
        train_to(plain, STEPS, ALONE)
        checkpoints.save(state, extra={}, world=world)
        again = fresh_state(kind, ALONE)
        checkpoints.load_newest(again)
        seen[kind] = {
            "rows": rows,
            "read": read,
            "from_one_process": farthest(tensors_of(state), tensors_of(plain)),
            "read_by_one": differing(tensors_of(again), tensors_of(state)),
        }
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    """What two processes saw (`two`, by rank) and then four (`four`)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, __file__, str(tmp_path_factory.mktemp("sharded"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


OPTIMIZERS = pytest.mark.parametrize("kind", ["adamw", "muon"])


def test_each_of_two_processes_holds_half_of_all_but_what_is_written_by_hand(seen):
    for one in seen["two"]:
        assert one["held"]["whole"] == ["mask_logit_bias"]
        assert one["held"]["ranges"]
    assert sum(one["held"]["share"] for one in seen["two"]) == pytest.approx(1.0)
    assert seen["two"][0]["held"]["share"] == pytest.approx(0.5, abs=0.05)


@OPTIMIZERS
def test_sharded_training_gives_the_weights_of_one_process(seen, kind):
    """Weights, averages and optimiser state after five clipped steps; with Muon its nearly orthogonal products too."""
    for one in seen["two"]:
        found = one["trained." + kind]
        assert found["from_one_process"] < 1e-12
        assert max(found["norms"]) < 1e-12
        assert found["moved"] > 1e-3


@OPTIMIZERS
def test_each_process_writes_its_rows_into_safetensors_of_its_own(seen, kind):
    names = {f"{name}-{part}-of-2.safetensors" for name in ("network", "average", "optimizer") for part in (1, 2)}
    for one in seen["two"]:
        assert set(one["trained." + kind]["files"]) == {*names, "state.json"}
        assert one["trained." + kind]["extra"] == {"seconds": 1.5, "damaged": []}


@OPTIMIZERS
def test_a_sharded_checkpoint_is_the_same_bits_on_one_process_and_back_on_two(seen, kind):
    for one in seen["two"]:
        found = one["trained." + kind]
        assert found["read_by_one"] == found["read_again"] == found["read_from_one"] == []
        assert found["step"] == [KEPT_STEP, KEPT_STEP, STEPS]


@OPTIMIZERS
def test_going_on_from_a_sharded_checkpoint_is_never_having_stopped(seen, kind):
    assert [one["trained." + kind]["gone_on"] for one in seen["two"]] == [[], []]


@OPTIMIZERS
def test_what_two_processes_wrote_four_read_and_go_on_with(seen, kind):
    assert [one[kind]["rows"] for one in seen["four"]] == [2, 2, 1, 0]
    for one in seen["four"]:
        assert one[kind]["read"] == one[kind]["read_by_one"] == []
        assert one[kind]["from_one_process"] < 1e-12


def test_averaged_weights_are_lent_to_a_sharded_network_and_taken_back(seen):
    for one in seen["two"]:
        sharded, alone = one["lent"]["sharded"], one["lent"]["alone"]
        assert sharded == pytest.approx(alone, rel=1e-12)
        assert sharded[0] == sharded[2]
        assert abs(sharded[1] - sharded[0]) > 1e-3


def test_overflow_on_one_process_makes_all_skip_the_step(seen):
    assert [one["overflow"] for one in seen["two"]] == [[False, True]] * 2


def test_a_sharded_network_reads_on_with_a_cache(seen):
    assert max(one["cached"] for one in seen["two"]) < 1e-5


def test_a_model_of_sharded_weights_is_saved_whole(seen):
    assert [one["saved"] for one in seen["two"]] == [{"sharded": True, "differing": []}] * 2


def test_what_copies_of_a_network_wrote_is_read_by_copies_and_by_one_process(seen):
    assert [one["copies"] for one in seen["two"]] == [{"copies": [], "one": []}] * 2


def test_a_damaged_part_is_passed_over_by_all_processes(seen):
    for one in seen["two"]:
        (flipped,), step = one["damaged"]["flipped"]
        assert flipped == "step-2 (average-2-of-2.safetensors is damaged: its digest is not the recorded one)"
        (gone,), again = one["damaged"]["gone"]
        assert gone.startswith("step-2 (")
        assert "No such file" in gone
        assert step == again == 1


def test_a_disk_that_refuses_one_process_is_everyones_error_and_leaves_nothing(seen):
    for one in seen["two"]:
        assert len(one["refused"]["said"]) == 2
        for line in one["refused"]["said"]:
            assert line.startswith("the checkpoint of step 3 could not be written to")
        assert one["refused"]["left0"] == one["refused"]["left1"] == ["step-1", "step-2"]
        assert one["refused"]["left"] == ["step-2", "step-3"]


@pytest.mark.parametrize("kind", ["copies", "shares"])
def test_two_processes_train_the_experts_of_one_and_balance_them_alike(seen, kind):
    for one in seen["two"]:
        assert one["experts"][kind] < 1e-12
        assert one["experts"][kind + " balance"]
        assert one["experts"]["moved"] > 0.015


def test_a_sharded_network_is_asked_in_two_parts(seen):
    """The gathered weights of both parts are those of one process, in evaluation and within a training pass."""
    for one in seen["two"]:
        sharded, alone = one["concepts"]["said"]
        assert sharded == pytest.approx(alone, rel=1e-5)
        assert alone > 10
        assert one["concepts"]["gradients"] < 1e-3


def both(folder: Path) -> dict:
    two = in_processes(2, lambda world: looks(world, folder), folder=folder / "two")
    return {"two": two, "four": in_processes(4, lambda world: looks_of_four(world, folder), folder=folder / "four")}


if __name__ == "__main__":
    import torch._dynamo  # once for all processes: fully_shard would import them in each
    import torch.distributed.fsdp

    print(json.dumps(both(Path(sys.argv[1]))))
