"""Runs inverted activations on two processes and through a compiler, and prints what differs, as JSON.

A script of its own: processes are forks of one with few imports and one thread, and jaxtyping's import hook, under
which tests run, wraps every function in checks that torch.compile cannot follow.
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from reversible_networks import HYBRID, MASK, affine, network
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from remask.networks.inverted import stored
from remask.networks.reversible import inversion_error
from remask.networks.running import Compiled, run_in_training
from remask.randomness import keyed_generator
from remask.sharding import shard, whole
from several import in_processes

ROWS, LENGTH, STEPS = 4, 6, 3
NETWORKS = {
    "hybrid": {"kinds": HYBRID, "coupling": affine()},
    "told the time": {"kinds": "rr", "conditioned": True, "tied": True},
    "sharded": {"kinds": "rs", "coupling": affine(), "carry": stored},
}


def train(world, name: str) -> dict[str, list[float]]:
    """Three steps in float64, each process on its rows, in two micro-batches of which the first exchanges nothing."""
    built = network(**NETWORKS[name]).double()
    if name == "sharded":
        shard(built, layers=built.repeated_layers(), world=world)
    exchanging = world.size > 1 and name != "sharded"
    copies = DistributedDataParallel(built) if exchanging else built
    optimizer = torch.optim.SGD(built.parameters(), lr=0.5)
    for step in range(STEPS):
        clean = torch.randint(MASK, (2, ROWS, LENGTH), generator=keyed_generator(step))
        hidden = torch.rand(2, ROWS, LENGTH, generator=keyed_generator("hidden", step)) < 0.5
        own = slice(world.rank * ROWS // world.size, (world.rank + 1) * ROWS // world.size)
        for micro, (x, where) in enumerate(zip(clean[:, own], hidden[:, own], strict=True)):
            if exchanging:
                copies.require_backward_grad_sync = micro == 1
            z, t = torch.where(where, MASK, x), torch.linspace(0.1, 0.9, ROWS, dtype=torch.float64)[own]
            logits = copies(z, t, segments=torch.ones_like(z), positions=where)
            # gradients are averages over processes
            (cross_entropy(logits, x[where], reduction="sum") * world.size / hidden.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: whole(p.detach()).flatten().tolist() for name, p in built.named_parameters()}


def all_trainings(world) -> dict:
    """By network, the weights after training."""
    return {name: train(world, name) for name in NETWORKS}


class Alone:
    """One process."""

    rank, size = 0, 1


def apart(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """The largest difference between weights."""
    assert one.keys() == other.keys()
    return max(max(abs(a - b) for a, b in zip(one[name], other[name], strict=True)) for name in one)


def compiled(**options) -> dict[str, float]:
    """Differences of compiled branches from plain ones and from stored activations, and the inversion error."""
    from test_recompute import gradients, loss_of

    networks = {"plain": network(**options), "compiled": network(**options), "stored": network(carry=stored, **options)}
    counters.clear()
    for kind in ("compiled", "stored"):
        run_in_training(networks[kind].repeated_layers(), Compiled("aot_eager"))
    found, graphs = {}, 0
    for kind, one in networks.items():
        found[kind] = gradients(one, partial(loss_of, doubled=False))
        graphs = graphs or counters["stats"]["unique_graphs"]
    differences = {
        other: max(float((found["compiled"][n] - v).abs().max() / v.abs().max()) for n, v in found[other].items())
        for other in ("plain", "stored")
    }
    breaks = sum(counters["graph_break"].values())
    return {**differences, "graphs": graphs, "breaks": breaks, "error": inversion_error(networks["compiled"])}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    alone = all_trainings(Alone)
    several = in_processes(2, all_trainings, folder=folder)
    start = {
        name: {n: p.detach().flatten().tolist() for n, p in network(**NETWORKS[name]).double().named_parameters()}
        for name in NETWORKS
    }
    distances = {
        name: {
            "processes": apart(several[0][name], several[1][name]),
            "one": apart(several[0][name], alone[name]),
            "moved": apart(alone[name], start[name]),
        }
        for name in NETWORKS
    }
    inside = compiled(kinds="rrs", dropout=0.3, conditioned=True, coupling=affine())
    print(json.dumps({"trained": distances, "compiled": inside}))
