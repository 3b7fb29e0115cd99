"""Random numbers that depend on a key and on an example's place in the global batch, and on nothing else.

A run draws all of its noise from `keyed_generator(seed, purpose, step)`. Draws are made for the whole global batch
and cut down to the local rows, so example k sees the same noise whatever the number of processes or micro-batches,
and a resumed step sees the noise it would have seen.

Shape letters: B examples on this process, G examples in the global batch, M rows of V weights.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.data.batch import Batch

NUMBERS_AT_ONCE = 1 << 24
"""Wide numbers that a draw holds at once: with a large vocabulary the table of all positions would not fit memory."""


def derive_seed(*key: int | str) -> int:
    """A seed in [0, 2^63) from any key, by BLAKE2b; unlike keys give unrelated seeds.

    Args:
        key: integers and words, e.g. `(seed, "noise", step)`.

    Returns:
        A non-negative 63-bit integer.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` whose stream is a function of `key` alone."""
    return torch.Generator(device=device).manual_seed(derive_seed(*key))


def widest_float(device: torch.device | str) -> torch.dtype:
    """The dtype of times, noise and draws on a device: float64, or float32 on MPS, which has nothing wider."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def batch_uniform(generator: torch.Generator, batch: Batch, *shape: int) -> Float[Tensor, "B ..."]:
    """Uniform draws in [0, 1) for the rows of `batch`, taken from one draw for the whole global batch.

    Args:
        generator: on the batch's device; advanced by `global_size * prod(shape)` draws.
        batch: says which rows of the global batch are here.
        shape: the shape of one example's draws.

    Returns:
        [B, *shape], as wide as the device can, so that the tail of a distribution keeps its mass.
    """
    device = generator.device
    draws = torch.rand(batch.global_size, *shape, generator=generator, device=device, dtype=widest_float(device))
    return draws[batch.rows]


def batch_normal(generator: torch.Generator, batch: Batch, *shape: int) -> Float[Tensor, "B ..."]:
    """As `batch_uniform`, standard normal draws."""
    device = generator.device
    draws = torch.randn(batch.global_size, *shape, generator=generator, device=device, dtype=widest_float(device))
    return draws[batch.rows]


def draw_categorical(weights: Float[Tensor, "*N V"], *, generator: torch.Generator) -> torch.Tensor:
    """One draw from each row of non-negative weights, by the inverse cumulative sum, as wide as the device can.

    (Gumbel noise in float32 undersamples the tail: a third of the mass is lost at p = 0.005.)

    Args:
        weights: unnormalised probabilities [*N V]; each row has a positive sum.
        generator: on the device of `weights`.

    Returns:
        Indices, int64 [*N].
    """
    flat = weights.reshape(-1, weights.shape[-1])
    wide = widest_float(weights.device)
    u = torch.rand((len(flat), 1), generator=generator, device=weights.device, dtype=wide)
    rows = max(1, NUMBERS_AT_ONCE // flat.shape[-1])
    drawn = [_quantile(part.to(wide), at) for part, at in zip(flat.split(rows), u.split(rows), strict=True)]
    return torch.cat(drawn).view(weights.shape[:-1])


def _quantile(weights: Float[Tensor, "M V"], u: Float[Tensor, "M 1"]) -> Int[Tensor, "M"]:
    """The index at which the cumulative sum of each row passes the share 1 − u of its total."""
    cumulative = weights.cumsum(-1)
    # (1 - u) lies in (0, 1], so an index of weight zero at the front is never taken, and `right=False` with a
    # target of at most the total never runs past the last index of positive weight.
    return torch.searchsorted(cumulative, (1.0 - u) * cumulative[:, -1:]).squeeze(-1)


def draw_alike(weights: Float[Tensor, "V"], *shape: int, generator: torch.Generator) -> torch.Tensor:
    """As `draw_categorical`, for many draws from one row of weights, without a copy of them for each.

    Args:
        weights: unnormalised probabilities with a positive sum.
        shape: of the result.
        generator: on the device of `weights`.

    Returns:
        Indices, int64 of the given shape.
    """
    cumulative = weights.to(widest_float(weights.device)).cumsum(-1)
    u = torch.rand(shape, generator=generator, device=weights.device, dtype=cumulative.dtype)
    return torch.searchsorted(cumulative, (1.0 - u) * cumulative[-1])


@contextmanager
def keyed_dropout(*key: int | str, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generator: inside, that generator is a function of `key`; outside, as was.

    Of several GPUs only `device`'s generator is put back: asked for all, torch copies each one's state and warns.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed("dropout", *key))
        yield
