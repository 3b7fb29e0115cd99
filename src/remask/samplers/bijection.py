r"""A bijection between uniform noise and text: a masked-diffusion sampler of K rounds, run forwards and backwards.

A sampler that reveals blocks B_1 … B_K, each chosen by what is already revealed, draws every token of a block by the
quantile function of its predicted distribution (`samplers.quantile`). With p_i the distribution at place i given the
revealed tokens and C_i its cumulative sum before x_i,

    u_i = C_i(x_i) + w_i · p_i(x_i)                                                                           (1)

maps [0, 1)^L one-to-one onto pairs of a text x and w in [0, 1)^L. At fixed x, ∂u/∂w is diagonal, and

    log|det ∂u/∂w| = Σ_i log p_i(x_i) = log P(x | π),                                                         (2)

the exact log-probability with which this very sampler (order, rounds, blocks) draws x. It holds of every network of
masks, whatever its inside. P is the law of one sampler and no bound of another's: each K and order has its own.

Shape letters: B rows, L length, V vocabulary, K rounds, M places of a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.orders import Order, rounds
from remask.processes import Masking
from remask.randomness import NUMBERS_AT_ONCE, widest_float
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.quantile import draw, exact, exact_device, place
from remask.samplers.transforms import identity

Places = tuple[Int[Tensor, "M"], Int[Tensor, "M"]]
"""Rows and columns of some places of a block."""
Layer = Callable[[Places, Float[Tensor, "M V"]], Int[Tensor, "M"]]
"""(places, their log-probabilities in float64) → their tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """Texts from noise.

    Attributes:
        ids: tokens, the given ones among them [B L].
        within: w of (1), float64; 0 at given tokens [B L].
        nats: −log p of each drawn token, float64; 0 at given ones. A row's sum is −log P(x | π) [B L].
    """

    ids: Int[Tensor, "B L"]
    within: Float[Tensor, "B L"]
    nats: Float[Tensor, "B L"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Noise from texts.

    Attributes:
        noise: u of (1), float64; 0 at given tokens [B L].
        nats: −log p of each free token, float64; 0 at given ones. A row's sum is −log P(x | π) [B L].
    """

    noise: Float[Tensor, "B L"]
    nats: Float[Tensor, "B L"]


@dataclass(frozen=True, kw_only=True)
class Bijection:
    """A sampler of K rounds that can be run backwards.

    Everything is a function of its arguments: nothing is drawn. Encoding and decoding ask the network the same
    questions in the same batches, so they agree to the last digit where they are given the same rows together.

    Attributes:
        model: a network and a masking process.
        order: which places each round reveals.
        steps: K, rounds of the row or of each block.
        block_length: tokens of the blocks that are revealed from left to right; None for the row as one.
        transform: changes logits before each draw (temperature, nucleus); the order is the model's own.

    Raises:
        ValueError: when the noise is not masking, or `steps` or `block_length` is below 1.
    """

    model: Denoiser
    order: Order
    steps: int
    block_length: int | None = None
    transform: Transform = identity

    def __post_init__(self) -> None:
        if not isinstance(self.model.process, Masking):
            raise ValueError(
                f"a model of {type(self.model.process).__name__} noise was given; a bijection reveals masked tokens, "
                "so its noise must be Masking"
            )
        if self.steps < 1:
            raise ValueError(f"steps: {self.steps} was given; a row is revealed in 1 round or more")
        if self.block_length is not None and self.block_length < 1:
            raise ValueError(f"block_length: {self.block_length} was given; a block holds 1 token or more")

    @torch.no_grad()
    def decode(self, noise: Float[Tensor, "B L"], prompt: Prompt, *, on_step: OnStep = silent) -> Decoded:
        """Texts from noise, the inverse of (1); K network calls, or as many a block.

        Args:
            noise: u in [0, 1), read at free places; uniform draws give samples of P.
            prompt: given tokens.
            on_step: sees the start and the state after each round.
        """
        ids = prompt.ids
        u = exact(noise).to(exact_device(ids.device))
        within, nats = torch.zeros_like(u), torch.zeros_like(u)

        def layer(here: Places, log_p: Tensor) -> Tensor:
            x, w = draw(log_p.exp(), u[here])
            within[here], nats[here] = w, _nats(log_p, x)
            return x

        drawn = self._reveal(ids, ~prompt.fixed, layer, on_step=on_step)
        return Decoded(ids=drawn, within=within, nats=nats)

    @torch.no_grad()
    def encode(self, ids: Int[Tensor, "B L"], free: Bool[Tensor, "B L"], *, within: Float[Tensor, "B L"]) -> Encoded:
        """Noise from texts by (1); as many network calls as `decode`.

        Args:
            ids: texts.
            free: places that have noise; the others are given, as a prompt's.
            within: w in [0, 1), read at free places; uniform draws make u uniform for texts of law P.
        """
        x = ids.to(exact_device(ids.device))
        w = exact(within).to(x.device)
        noise, nats = torch.zeros_like(w), torch.zeros_like(w)

        def layer(here: Places, log_p: Tensor) -> Tensor:
            noise[here], nats[here] = place(log_p.exp(), x[here], w[here]), _nats(log_p, x[here])
            return x[here]

        self._reveal(ids, free, layer)
        return Encoded(noise=noise, nats=nats)

    @torch.no_grad()
    def nats(self, ids: Int[Tensor, "B L"], free: Bool[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """−log p of each free token when its turn comes, float64; 0 elsewhere. A row's sum is −log P(x | π), by (2).

        Args:
            ids: texts.
            free: places that are drawn; the others are given.
        """
        x = ids.to(exact_device(ids.device))
        nats = torch.zeros(x.shape, dtype=torch.float64, device=x.device)

        def layer(here: Places, log_p: Tensor) -> Tensor:
            nats[here] = _nats(log_p, x[here])
            return x[here]

        self._reveal(ids, free, layer)
        return nats

    def _reveal(
        self, ids: Int[Tensor, "B L"], free: Bool[Tensor, "B L"], layer: Layer, *, on_step: OnStep = silent
    ) -> Int[Tensor, "B L"]:
        """Starts from masks and puts each block's tokens into their places; a round that reveals none costs no call."""
        process = self.model.process
        places = int(free.sum(-1).max()) if len(free) else 0
        steps = min(self.steps, max(places, 1))  # rounds beyond one a place reveal nothing
        schedule = rounds(free, steps, block_length=self.block_length)
        z, hidden = process.forget(ids, free), free
        on_step(Frame(step=0, t=1.0, z=z))
        times = self._times(free, [count for _, count in schedule])
        for step, ((eligible, count), t) in enumerate(zip(schedule, times, strict=True), start=1):
            now = hidden & eligible
            wanted = self.order.wanted(now, count)
            if bool(wanted.any()):
                logits = self.model.logits(z, t, positions=wanted)
                block = self.order.choose(process.log_clean(logits), wanted, now, count)
                z = z.masked_scatter(block, self._tokens(block, logits[block[wanted]], layer).to(z.device))
                hidden = hidden & ~block
            on_step(Frame(step=step, t=1.0 - step / len(schedule), z=z))
        return z

    def _tokens(self, block: Bool[Tensor, "B L"], logits: Float[Tensor, "M V"], layer: Layer) -> Int[Tensor, "M"]:
        """What `layer` makes of the block's places, so many at once as memory should hold in float64."""
        rows = max(1, NUMBERS_AT_ONCE // logits.shape[-1])
        places = block.nonzero().to(exact_device(logits.device)).split(rows)
        found = []
        for part, here in zip(logits.split(rows), places, strict=True):
            log_p = self.transform(self.model.process.log_clean(exact(part))).log_softmax(-1)
            row, column = here.unbind(-1)
            found.append(layer((row, column), log_p))
        return torch.cat(found)

    def _times(self, free: Bool[Tensor, "B L"], counts: Sequence[Int[Tensor, "B"]]) -> tuple[Float[Tensor, "B"], ...]:
        """For each round, the time of each row at which the noise leaves the share of masks that it begins with."""
        count = torch.stack([*counts], -1)
        hidden = count.sum(-1, keepdim=True) - count.cumsum(-1) + count
        return self.model.process.time_hiding(hidden, free.sum(-1, keepdim=True)).unbind(-1)


def _nats(log_p: Float[Tensor, "M V"], x: Int[Tensor, "M"]) -> Float[Tensor, "M"]:
    return -log_p.gather(-1, x[:, None]).squeeze(-1)


def bijective(
    model: Denoiser,
    times: Sequence[float],
    *,
    order: Order,
    prompt: Prompt,
    generator: torch.Generator,
    block_length: int | None = None,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Decodes uniform noise: a draw from the law whose likelihood `Bijection.nats` gives.

    Args:
        model: network and a masking process.
        times: K + 1 of them; only their number counts, since a row's time is that of its share of masks.
        order: which places each round reveals.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; the noise is all that is random.
        block_length: of blocks revealed from left to right, each in K rounds; None for the row as one.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each round.

    Returns:
        Tokens [B L].
    """
    bijection = Bijection(
        model=model, order=order, steps=len(times) - 1, block_length=block_length, transform=transform
    )
    device = generator.device
    noise = torch.rand(prompt.ids.shape, generator=generator, device=device, dtype=widest_float(device))
    return bijection.decode(noise, prompt, on_step=on_step).ids
