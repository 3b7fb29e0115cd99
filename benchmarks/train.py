"""Training tokens a second of remask's step against a plain PyTorch loop, as a ratio in one run.

Both loops train the same network on the same rows with AdamW. The plain one does what a short script does: it computes
logits at every position, and a cross-entropy over the whole vocabulary that is then masked. remask projects onto the
vocabulary at masked positions only. The loops take turns, a few steps each, so that a machine whose speed drifts slows
both.

Run: .venv/bin/python benchmarks/train.py [--vocab 258 1024 8192 32768] [--steps 6] [--rounds 5]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from accelerate import Accelerator
from torch.nn import functional

from remask.data.batch import Batch
from remask.guard import cautious
from remask.networks.blocks import Residual, Timeless
from remask.networks.stacks import straight
from remask.networks.transformer import BIDIRECTIONAL, Transformer
from remask.objectives import LikelihoodBound, masking_integrand
from remask.optimisation import MovingAverage, adamw, constant
from remask.parallel import ALONE
from remask.processes import Masking
from remask.schedules import Linear
from remask.training import TrainingState, train


def make_network(vocab: int, width: int, layers: int) -> Transformer:
    """A masked-diffusion transformer of the given size."""
    network = Transformer(
        vocab_size=vocab,
        mask_id=vocab - 1,
        width=width,
        layers=layers,
        heads=4,
        mlp_width=32 * round(8 * width / 3 / 32),
        direction=BIDIRECTIONAL,
        time=Timeless(),
        stack=partial(straight, residual=partial(Residual, dropout=0.0)),
    )
    network.initialise(torch.Generator().manual_seed(0))
    return network


def make_batch(vocab: int, rows: int, length: int) -> Batch:
    """Random tokens: the time of a step does not depend on what the text says."""
    ids = torch.randint(vocab - 1, (rows, length), generator=torch.Generator().manual_seed(1))
    return Batch(
        ids=ids,
        segments=torch.ones_like(ids),
        targets=torch.ones_like(ids, dtype=torch.bool),
        byte_lengths=torch.ones_like(ids),
        rows=torch.arange(rows),
        global_size=rows,
    )


def plain_steps(network: Transformer, batch: Batch) -> Callable[[int], None]:
    """The loop of a short script: full-vocabulary logits everywhere, loss masked afterwards."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    everywhere = torch.ones_like(batch.targets)
    rows, length = batch.ids.shape

    def run(steps: int) -> None:
        for _ in range(steps):
            t = torch.rand(rows, 1)
            masked = torch.rand(rows, length) < t
            z = torch.where(masked, network.mask_id, batch.ids)
            logits = network(z, t[:, 0], segments=batch.segments, positions=everywhere)
            nats = functional.cross_entropy(logits, batch.ids.flatten(), reduction="none").view(rows, length)
            loss = (nats * masked / t).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()

    return run


def remask_steps(network: Transformer, batch: Batch) -> Callable[[int], None]:
    """Remask's own loop, with all that it does besides: keyed noise, stratified times, moving average, checks."""
    accelerator = Accelerator(cpu=True)
    optimizers = adamw(network, learning_rate=1e-3, weight_decay=0.1, betas=(0.9, 0.95))
    prepared, *optimizers = accelerator.prepare(network, *optimizers)
    state = TrainingState(prepared, optimizers, MovingAverage(network, decay=0.999))
    process = Masking(schedule=Linear(), vocab_size=network.head.out_features, mask_id=network.mask_id)
    objective = LikelihoodBound(process=process, integrand=masking_integrand, t_min=1e-3)

    guard = cautious(network, steps=10**6)

    def run(steps: int) -> None:
        loop = train(
            state,
            objective=objective,
            batches=iter(lambda: [batch], None),
            accelerator=accelerator,
            curve=constant,
            clip=1.0,
            seed=1,
            steps=state.step + steps,
            world=ALONE,
            guard=guard,
        )
        for _ in loop:
            pass

    return run


def seconds(run: Callable[[int], None], steps: int) -> float:
    """Wall time of some steps."""
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def main() -> None:
    """Prints one line a vocabulary: tokens a second of both loops, and the ratio's median and range."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[258, 1024, 8192, 32768])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help="steps of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    args = parser.parse_args()
    tokens = args.rows * args.length * args.steps
    print(
        f"{args.rows} rows of {args.length} tokens, width {args.width}, {args.layers} layers, "
        f"{torch.get_num_threads()} threads"
    )
    for vocab in args.vocab:
        batch = make_batch(vocab, args.rows, args.length)
        ours = remask_steps(make_network(vocab, args.width, args.layers), batch)
        plain = plain_steps(make_network(vocab, args.width, args.layers), batch)
        ours(2)
        plain(2)
        pairs = [(seconds(ours, args.steps), seconds(plain, args.steps)) for _ in range(args.rounds)]
        ratios = sorted(other / own for own, other in pairs)
        own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"vocab {vocab:>6}: remask {tokens / own:>8,.0f} tokens/s, plain loop {tokens / other:>8,.0f} tokens/s, "
            f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
