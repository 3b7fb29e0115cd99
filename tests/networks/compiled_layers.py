"""Runs compiled layers beside plain ones and prints what differs, as JSON.

A script of its own, since jaxtyping's import hook, under which tests run, wraps every function in checks that
torch.compile cannot follow.
"""

import json
from functools import partial

import torch
from test_recompute import VARIANTS, gradients, loss_of, make
from torch._dynamo.utils import counters

from remask.networks.rotary import rotary, rotate
from remask.networks.running import Compiled, Recomputed, run_in_training
from remask.randomness import keyed_generator

RUNS = {"kept": Compiled("aot_eager"), "recomputed": Recomputed(Compiled("aot_eager"))}
CASES = [("adaln", "kept"), ("context", "recomputed"), ("experts", "kept")]


def difference(variant: str, run: str) -> float:
    """The largest difference of loss or gradients from the plain network's, over the largest entry of its kind."""
    loss = partial(loss_of, doubled=variant == "context")
    plain, compiled = make(**VARIANTS[variant]), make(**VARIANTS[variant])
    run_in_training(compiled.repeated_layers(), RUNS[run])
    expected, found = gradients(plain, loss), gradients(compiled, loss)
    assert expected.keys() == found.keys()
    return max(float((found[name] - value).abs().max() / value.abs().max()) for name, value in expected.items())


def graphs_of_many_layers() -> dict[str, int]:
    """How many graphs twelve layers are compiled to in two steps, and how often one is broken."""
    torch._dynamo.reset()
    counters.clear()
    network = make(**VARIANTS["plain"], layers=12)
    run_in_training(network.repeated_layers(), Compiled("aot_eager"))
    loss_of(network, doubled=False, length=9).backward()
    loss_of(network, doubled=False, length=9).backward()
    graphs = {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    with torch.no_grad():
        loss_of(network.eval(), doubled=False, length=7)
    return {**graphs, "in_evaluation": counters["stats"]["unique_graphs"] - graphs["graphs"]}


def rotation() -> dict[str, float]:
    """The largest difference between a compiled rotation and the plain one, and how its graph is made."""
    x = torch.randn(2, 6, 3, 8, generator=keyed_generator(1))
    turn = rotary(6, 8, device=x.device)
    names = []

    def record(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    apart = float((torch.compile(rotate, backend=record)(x, turn) - rotate(x, turn)).abs().max())
    return {"difference": apart, "nodes": len(names), "complex": sum("complex" in name for name in names)}


if __name__ == "__main__":
    differences = {f"{variant} {run}": difference(variant, run) for variant, run in CASES}
    print(json.dumps({"differences": differences, "many": graphs_of_many_layers(), "rotation": rotation()}))
