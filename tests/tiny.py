"""A tiny trainable model over a text that repeats one pattern, and the steps to train it by hand.

Ids 0 to 5 are tokens, 6 is the mask.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from accelerate import Accelerator

from remask.data.batch import Batch
from remask.guard import cautious
from remask.networks import BIDIRECTIONAL, CAUSAL, Transformer
from remask.networks.blocks import GatedMLP, Residual, Timeless
from remask.networks.experts import Experts
from remask.networks.stacks import straight
from remask.objectives import LikelihoodBound, NextToken, masking_integrand
from remask.optimisation import MovingAverage, adamw, constant, muon
from remask.parallel import ALONE, World
from remask.processes import Masking
from remask.randomness import keyed_generator
from remask.schedules import Linear
from remask.training import Step, TrainingState, train

V, MASK, LENGTH = 7, 6, 12
PROCESS = Masking(schedule=Linear(), vocab_size=V, mask_id=MASK)
BOUND = LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-3)
NEXT_TOKEN = NextToken(mask_id=MASK)
EXPERTS = partial(Experts, experts=4, per_token=2, balance_rate=0.01)


def tiny_network(
    *,
    vocab_size: int = V,
    width: int = 16,
    dropout: float = 0.0,
    causal: bool = False,
    seed: int = 1,
    mlp: Callable[[int, int], torch.nn.Module] = GatedMLP,
):
    network = Transformer(
        vocab_size=vocab_size,
        mask_id=vocab_size - 1,
        width=width,
        layers=1,
        heads=2,
        mlp_width=2 * width,
        direction=CAUSAL if causal else BIDIRECTIONAL,
        time=Timeless(),
        stack=partial(straight, residual=partial(Residual, dropout=dropout)),
        mlp=mlp,
    )
    network.initialise(keyed_generator(seed, "weights"))
    return network


def tiny_optimizers(network, kind: str = "adamw", *, learning_rate: float = 3e-3):
    common = {"learning_rate": learning_rate, "weight_decay": 0.1, "betas": (0.9, 0.95)}
    if kind == "adamw":
        return adamw(network, **common)
    return muon(network, list(network.hidden_matrices()), muon_learning_rate=0.02, **common)


def tiny_state(*, optimizer: str = "adamw", ema: float = 0.9, learning_rate: float = 3e-3, **network) -> TrainingState:
    built = tiny_network(**network)
    return TrainingState(
        built, tiny_optimizers(built, optimizer, learning_rate=learning_rate), MovingAverage(built, decay=ema)
    )


def pattern_rows(count: int, *, seed: int) -> torch.Tensor:
    """Rows of 0 1 2 3 4 5 0 1 …, each from a random place: a bigram fixes all but the first token."""
    start = torch.randint(6, (count, 1), generator=keyed_generator(seed, "rows"))
    return (start + torch.arange(LENGTH)) % 6


def cut(ids: torch.Tensor, micro: int, *, padding: int = 0) -> list[Batch]:
    """The micro-batches of one global batch, each row with `padding` further positions."""
    valid = torch.ones_like(ids, dtype=torch.bool)
    valid = torch.nn.functional.pad(valid, (0, padding), value=False)
    ids = torch.nn.functional.pad(ids, (0, padding))
    return [
        Batch(
            ids=ids[start : start + micro],
            segments=valid[start : start + micro].long(),
            targets=valid[start : start + micro],
            byte_lengths=valid[start : start + micro].long(),
            rows=torch.arange(start, min(start + micro, len(ids))),
            global_size=len(ids),
        )
        for start in range(0, len(ids), micro)
    ]


def pattern_batches(
    *, start_step: int = 0, batch_size: int = 8, micro: int = 8, seed: int = 1
) -> Iterator[list[Batch]]:
    step = start_step
    while True:
        yield cut(pattern_rows(batch_size, seed=1000 * seed + step), micro)
        step += 1


def run_steps(
    state: TrainingState,
    steps: int,
    *,
    objective=BOUND,
    batches=None,
    clip: float = 1.0,
    seed: int = 1,
    curve=constant,
    guard=None,
    world: World = ALONE,
) -> list[Step]:
    """Trains on the CPU up to step `steps`."""
    return list(
        train(
            state,
            objective=objective,
            batches=pattern_batches(start_step=state.step) if batches is None else batches,
            accelerator=Accelerator(cpu=True),
            curve=curve,
            clip=clip,
            seed=seed,
            steps=steps,
            world=world,
            guard=guard or cautious(state.network, steps=steps),
        )
    )


def everything(state: TrainingState) -> dict[str, torch.Tensor]:
    """All tensors of a training state, by name."""
    tensors = {f"network.{name}": p.detach().clone() for name, p in state.network.named_parameters()}
    tensors |= {f"average.{name}": value.clone() for name, value in state.average.average.items()}
    for i, optimizer in enumerate(state.optimizers):
        for k, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}.{key}": torch.as_tensor(value).clone() for key, value in slots.items()}
    return tensors


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names whose tensors are not bit for bit the same."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]
