"""Resident memory of training from a large token cache: the cache is mapped, not read.

Writes a token cache of the asked size (random ids), trains a small masked-diffusion model from rows all over it, and
prints the peak resident memory of the process that trained.

Run: .venv/bin/python benchmarks/memory.py [--gigabytes 1] [--steps 300] [--folder DIR]
The folder needs twice that much space; the files are removed at the end.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

VOCAB = 8192
PIECE = 1 << 22


def write_cache(folder: Path, gigabytes: float) -> int:
    """A training split of random uint16 ids in the token store's layout; returns the number of tokens."""
    import json

    from remask.data.store import FORMAT

    tokens = int(gigabytes * 1e9) // 2
    rng = np.random.default_rng(0)
    with (folder / "train.ids").open("wb") as ids, (folder / "train.byte_lengths").open("wb") as lengths:
        for start in range(0, tokens, PIECE):
            size = min(PIECE, tokens - start)
            rng.integers(0, VOCAB - 2, size, dtype=np.uint16).tofile(ids)
            np.full(size, 3, dtype=np.uint8).tofile(lengths)
    np.append(np.arange(0, tokens, 1000, dtype=np.int64), tokens).tofile(folder / "train.document_offsets")
    meta = {
        "format": FORMAT,
        "vocab_size": VOCAB,
        "eos_id": VOCAB - 2,
        "splits": {"train": {"text_bytes": 3 * tokens}},
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return tokens


def train_from(folder: Path, steps: int) -> None:
    """Trains from the cache and prints peak resident memory; runs in a process of its own."""
    import torch
    from accelerate import Accelerator
    from train import make_network

    from remask.data.feed import RowsFeed
    from remask.data.packing import PackedRows
    from remask.data.store import TokenStore
    from remask.guard import cautious
    from remask.machine import peak_memory_bytes
    from remask.objectives import LikelihoodBound, masking_integrand
    from remask.optimisation import MovingAverage, adamw, constant
    from remask.parallel import ALONE
    from remask.processes import Masking
    from remask.schedules import Linear
    from remask.training import TrainingState, train

    network = make_network(VOCAB, 64, 2)
    accelerator = Accelerator(cpu=True)
    optimizers = adamw(network, learning_rate=1e-3, weight_decay=0.1, betas=(0.9, 0.95))
    prepared, *optimizers = accelerator.prepare(network, *optimizers)
    state = TrainingState(prepared, optimizers, MovingAverage(network, decay=0.999))
    process = Masking(schedule=Linear(), vocab_size=VOCAB, mask_id=VOCAB - 1)
    rows = PackedRows(TokenStore.open(folder, split="train"), length=128)
    loop = train(
        state,
        objective=LikelihoodBound(process=process, integrand=masking_integrand, t_min=1e-3),
        batches=RowsFeed(rows, batch_size=64, seed=1).open(start_step=0, process=0, processes=1),
        accelerator=accelerator,
        curve=constant,
        clip=1.0,
        seed=1,
        steps=steps,
        world=ALONE,
        guard=cautious(network, steps=steps),
    )
    for step in loop:
        if step.index % 50 == 0:
            peak = peak_memory_bytes(torch.device("cpu")) or 0
            print(f"step {step.index}: peak resident memory {peak / 1e9:.2f} GB", flush=True)


def main() -> None:
    """Writes the cache, trains in a second process, and removes the cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the ids on disk")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=None, help="where the cache is written")
    parser.add_argument("--train-from", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train_from is not None:
        train_from(args.train_from, args.steps)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        tokens = write_cache(Path(folder), args.gigabytes)
        print(f"token cache: {tokens:,} tokens, {2 * tokens / 1e9:.2f} GB of ids")
        command = [sys.executable, __file__, "--train-from", folder, "--steps", str(args.steps)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
