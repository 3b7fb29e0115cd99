"""Memory of activations against depth, and time of a step, of standard and of reversible transformers.

Four ways train the same transformer on the same random rows: standard blocks whose activations are kept, standard
blocks computed again one by one in the backward pass (checkpointed), reversible blocks that are undone in the backward
pass (inverted), and reversible blocks whose activations are kept.

Memory, at each depth in a process of its own, weights and their gradients left out:
  saved     tensors that autograd keeps for the backward pass, each storage once. Its hooks are not told what
            checkpointing keeps, the input of each block, so that figure is too low there.
  held      all that was made in the forward pass and is still there behind it; the input of each block among it.
  peak      the most that is there at once in a forward and backward pass, as seen after each operation. A stretch of
            reversible blocks hands over the gradients of all its weights at its end, so they add to it there.
  resident  the most resident memory of the process in such a pass, over that before it.
For each the slope: bytes a block, by least squares over all depths.

Time: forward and backward passes of one process, the ways in turn, each round beginning with the next one. Printed are
the median over rounds of each way's time over that of the first in the same round, with the quarters, least and largest
of these ratios. `standard, again` is the first way once more: what its ratios scatter is noise.

Run: .venv/bin/python benchmarks/reversible.py [--width 128] [--length 64] [--rows 8] [--depths 2 4 8 16 32]
     [--time-depths 8 32] [--rounds 15] [--coupling additive] [--dropout 0] [--json]
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from remask.networks import BIDIRECTIONAL, Transformer
from remask.networks.blocks import Branch, Residual, Timeless
from remask.networks.couplings import Additive, Affine
from remask.networks.inverted import inverted, stored
from remask.networks.reversible import inversion_error, mixed, reversible
from remask.networks.running import Recomputed, run_in_training
from remask.networks.stacks import straight
from remask.randomness import keyed_generator

VOCAB = 512
COUPLINGS = {"additive": Additive, "affine": Affine}
AGAIN = "standard, again"
MEASURES = ("saved", "held", "peak", "resident")


def standard(args: argparse.Namespace, depth: int) -> Transformer:
    """Standard blocks, activations kept."""
    return transformer(args, depth, partial(straight, residual=partial(Residual, dropout=args.dropout)))


def checkpointed(args: argparse.Namespace, depth: int) -> Transformer:
    """Standard blocks, each computed again in the backward pass."""
    network = standard(args, depth)
    run_in_training(network.repeated_layers(), Recomputed())
    return network


def reversible_by(args: argparse.Namespace, depth: int, *, carry: Callable[..., Any]) -> Transformer:
    """Reversible blocks, undone or with activations kept."""
    branch = partial(Branch, dropout=args.dropout)
    make = partial(reversible, branch=branch, coupling=COUPLINGS[args.coupling])
    return transformer(args, depth, partial(mixed, makes=[make] * depth, carry=carry))


WAYS: Mapping[str, Callable[[argparse.Namespace, int], Transformer]] = {
    "standard": standard,
    "checkpointed": checkpointed,
    "reversible, inverted": partial(reversible_by, carry=inverted),
    "reversible, kept": partial(reversible_by, carry=stored),
}


def transformer(args: argparse.Namespace, depth: int, stack: Callable[..., Any]) -> Transformer:
    """The transformer that is trained, its weights drawn from a fixed seed and their gradients there already."""
    network = Transformer(
        vocab_size=VOCAB,
        mask_id=VOCAB - 1,
        width=args.width,
        layers=depth,
        heads=max(1, args.width // 64),
        mlp_width=32 * round(args.width / 12),
        direction=BIDIRECTIONAL,
        time=Timeless(),
        stack=stack,
    )
    network.initialise(keyed_generator(1))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return network.train()


def loss_of(network: Transformer, args: argparse.Namespace) -> Tensor:
    """The loss of random rows, half of whose tokens are hidden."""
    generator = keyed_generator(2)
    clean = torch.randint(VOCAB - 1, (args.rows, args.length), generator=generator)
    hidden = torch.rand(clean.shape, generator=generator) < 0.5
    z, segments = torch.where(hidden, VOCAB - 1, clean), torch.ones_like(clean)
    logits = network(z, torch.zeros(args.rows), segments=segments, positions=hidden)
    return torch.nn.functional.cross_entropy(logits, clean[hidden])


class Live(TorchDispatchMode):
    """Counts the bytes that operations have made and that are still there.

    Args:
        network: whose weights and gradients do not count.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.apart = {_storage(tensor) for p in network.parameters() for tensor in (p, p.grad) if tensor is not None}
        self.known: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Makes the operation, then takes note of what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and _storage(tensor) not in self.apart:
                storage = tensor.untyped_storage()
                self.known[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, self.now())
        return made

    def now(self) -> int:
        """Bytes that are there."""
        self.known = {key: kept for key, kept in self.known.items() if not kept[0].expired()}
        return sum(size for _, size in self.known.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def saved_bytes(network: Transformer, args: argparse.Namespace) -> int:
    """Bytes of distinct storages that autograd keeps for the backward pass, weights left out."""
    weights = {_storage(p) for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(network, args)
    total = sum(size for storage, size in kept.items() if storage not in weights)
    del loss
    return total


def peak_resident() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory(args: argparse.Namespace, way: str, depth: int) -> dict[str, float]:
    """The figures of one way at one depth, for a process that has done nothing else."""
    torch.set_num_threads(1)
    small = argparse.Namespace(**{**vars(args), "rows": 1, "length": 2})
    loss_of(WAYS[way](small, 1), small).backward()  # torch imports parts of itself in a first step
    network = WAYS[way](args, depth)
    before = peak_resident()
    loss_of(network, args).backward()
    found = {"resident": float(peak_resident() - before)}
    with Live(network) as live:
        loss = loss_of(network, args)
        found["held"] = float(live.now())
        loss.backward()
    found |= {"peak": float(live.peak), "saved": float(saved_bytes(network, args))}
    error = inversion_error(network)
    parameters = sum(p.numel() for p in network.parameters())
    return {**found, "parameters": float(parameters), **({} if error is None else {"inversion_error": error})}


def in_fresh_process(args: argparse.Namespace, way: str, depth: int) -> dict[str, float]:
    """`memory` in a fork of this process, which itself computes nothing before the last fork."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def work(pipe: Connection) -> None:
        pipe.send(memory(args, way, depth))

    process = context.Process(target=work, args=(there,))
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return found


def slope(depths: Sequence[int], values: Sequence[float]) -> float:
    """Of the least-squares line through values at depths; nan for one depth."""
    return statistics.linear_regression(depths, values).slope if len(set(depths)) > 1 else float("nan")


def seconds_of_step(network: Transformer, args: argparse.Namespace) -> float:
    """Time of a forward and backward pass."""
    began = time.perf_counter()
    loss_of(network, args).backward()
    return time.perf_counter() - began


def ratios(args: argparse.Namespace, depth: int) -> dict[str, dict[str, float]]:
    """Way → its time over that of the first, over rounds in which the ways take turns."""
    torch.set_num_threads(1)
    networks = {name: make(args, depth) for name, make in {**WAYS, AGAIN: standard}.items()}
    names, rounds = list(networks), []
    for number in range(args.rounds + 1):
        turn = number % len(names)
        rounds.append({name: seconds_of_step(networks[name], args) for name in (*names[turn:], *names[:turn])})
    found = {}
    for name in names:
        shares = sorted(times[name] / times["standard"] for times in rounds[1:])  # the first warms up
        low, middle, high = statistics.quantiles(shares, n=4) if len(shares) > 1 else shares * 3
        seconds = statistics.median(times[name] for times in rounds[1:])
        found[name] = {"seconds": seconds, "ratio": middle, "lower_quarter": low, "upper_quarter": high}
        found[name] |= {"least": shares[0], "largest": shares[-1]}
    return found


def tell_memory(args: argparse.Namespace) -> None:
    """Measures memory, and prints a line for each way and measure, or one object for each way and depth."""
    depths = args.depths
    table: dict[str, list[dict[str, float]]] = {}
    for way in WAYS:
        table[way] = [in_fresh_process(args, way, depth) for depth in depths]
        for depth, found in zip(depths, table[way], strict=True) if args.json else ():
            print(json.dumps({"way": way, "depth": depth, **found}), flush=True)
    if not args.json:
        print(f"{'MB at depth':34}" + "".join(f"{depth:>9}" for depth in depths) + f"{'kB a block':>12}")
    for measure in MEASURES:
        for way, found in table.items():
            values = [one[measure] for one in found]
            rise = slope(depths, values)
            if args.json:
                print(json.dumps({"way": way, "measure": measure, "bytes_per_block": rise}), flush=True)
                continue
            cells = "".join(f"{value / 1e6:9.2f}" for value in values)
            print(f"{measure:10}{way:24}{cells}{rise / 1e3:12.1f}", flush=True)
    if not args.json:
        weights = slope(depths, [4 * found["parameters"] for found in table["standard"]])
        worst = max(one["inversion_error"] for one in table["reversible, inverted"])
        print(f"weights: {weights / 1e3:.1f} kB a block, gradients as much; largest inversion error {worst:.1e}")


def tell_times(args: argparse.Namespace) -> None:
    """Measures times, and prints a line for each depth and way."""
    for depth in args.time_depths:
        for way, found in ratios(args, depth).items():
            if args.json:
                print(json.dumps({"way": way, "depth": depth, **found}), flush=True)
                continue
            print(
                f"depth {depth:>2}  {way:24}{1e3 * found['seconds']:8.0f} ms a step   ×{found['ratio']:.2f}   quarters "
                f"{found['lower_quarter']:.2f} to {found['upper_quarter']:.2f}, all {found['least']:.2f} to "
                f"{found['largest']:.2f}",
                flush=True,
            )


def main() -> None:
    """Memory in processes of their own, then times in this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"width": 128, "length": 64, "rows": 8, "rounds": 15}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--time-depths", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--coupling", choices=COUPLINGS, default="additive")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    tell_memory(args)
    tell_times(args)


if __name__ == "__main__":
    main()
