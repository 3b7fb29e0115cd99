"""Memory and time of a training step, by how the network's layers are computed.

Each way (kept, recomputed, compiled, both) trains the same transformer on the same random rows in a process of its own,
after one step that is not counted. Printed: the peak resident memory over that before the first step, the bytes that
the backward pass keeps, the median time of a step, and how far the last loss is from the first way's; also as ratios.

Run: .venv/bin/python benchmarks/layers.py [--width 256] [--layers 8] [--length 256] [--rows 16] [--steps 8] [--json]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from functools import partial

import torch
from torch.autograd.graph import saved_tensors_hooks

from remask.networks import BIDIRECTIONAL, Transformer
from remask.networks.blocks import Residual, Timeless
from remask.networks.running import Compiled, Recomputed, direct, run_in_training
from remask.networks.stacks import straight
from remask.optimisation import adamw
from remask.randomness import keyed_generator

VOCAB = 1024
WAYS = {
    "kept": direct,
    "recomputed": Recomputed(),
    "compiled": Compiled("inductor"),
    "compiled and recomputed": Recomputed(Compiled("inductor")),
}


def peak() -> int:
    """Peak resident memory of this process so far, in bytes (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build(args: argparse.Namespace) -> Transformer:
    """The transformer that is trained, its weights drawn from a fixed seed."""
    network = Transformer(
        vocab_size=VOCAB,
        mask_id=VOCAB - 1,
        width=args.width,
        layers=args.layers,
        heads=max(1, args.width // 64),
        mlp_width=8 * args.width // 3,
        direction=BIDIRECTIONAL,
        time=Timeless(),
        stack=partial(straight, residual=partial(Residual, dropout=0.0)),
    )
    network.initialise(keyed_generator(1))
    return network.train()


def loss_of(network: Transformer, step: int, args: argparse.Namespace) -> torch.Tensor:
    """The loss of one step's random rows, half of whose tokens are hidden."""
    generator = keyed_generator(2, step)
    clean = torch.randint(VOCAB - 1, (args.rows, args.length), generator=generator)
    hidden = torch.rand(clean.shape, generator=generator) < 0.5
    z, segments = torch.where(hidden, VOCAB - 1, clean), torch.ones_like(clean)
    logits = network(z, torch.zeros(args.rows), segments=segments, positions=hidden)
    return torch.nn.functional.cross_entropy(logits, clean[hidden])


def kept_bytes(network: Transformer, args: argparse.Namespace) -> int:
    """Bytes of distinct tensors that a loss keeps for its backward pass, the weights among them."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(network, 0, args)
    total = sum(kept.values())
    del loss
    return total


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Trains in one way, in this process."""
    torch.set_num_threads(args.threads)
    network = build(args)
    (optimizer,) = adamw(network, learning_rate=1e-3, weight_decay=0.1, betas=(0.9, 0.95))
    run_in_training(network.repeated_layers(), WAYS[args.way])
    before, times, loss = peak(), [], torch.zeros(())
    for step in range(args.steps + 1):
        began = time.perf_counter()
        loss = loss_of(network, step, args)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    figures = {"peak_bytes": peak() - before, "seconds": statistics.median(times[1:]), "first_seconds": times[0]}
    return {**figures, "loss": float(loss.detach()), "kept_bytes": kept_bytes(network, args)}


def main() -> None:
    """Measures every way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"width": 256, "layers": 8, "length": 256, "rows": 16, "steps": 8, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--way", choices=WAYS, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way is not None:
        print(json.dumps(measure(args)))
        return
    first: dict[str, float] = {}
    for way in WAYS:
        command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        first = first or found
        if args.json:
            print(json.dumps({"way": way, **found}), flush=True)
            continue
        print(
            f"{way:24} peak {found['peak_bytes'] / 1e6:6.0f} MB (×{found['peak_bytes'] / first['peak_bytes']:.2f})   "
            f"kept {found['kept_bytes'] / 1e6:6.0f} MB (×{found['kept_bytes'] / first['kept_bytes']:.2f})   "
            f"step {1e3 * found['seconds']:6.0f} ms (×{found['seconds'] / first['seconds']:.2f}; the first "
            f"{found['first_seconds']:.1f} s)   last loss apart by {abs(found['loss'] - first['loss']):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
