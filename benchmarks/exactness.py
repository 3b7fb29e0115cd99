"""How exact the bijective family is: the error of each claim, measured at toy size, and of claims that must fail.

Every text of a small vocabulary is enumerated, so sums over texts are sums. The networks are transformers with random
weights, large enough that tokens depend strongly on each other; standard and reversible ones, in float64 unless a line
says otherwise. docs/bijective.md holds what this prints.

Run: .venv/bin/python benchmarks/exactness.py

Shape letters: B rows, L length, V vocabulary, D width, M places.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from remask.networks.blocks import Branch, Residual, Timeless
from remask.networks.couplings import Additive, Affine
from remask.networks.inverted import stored
from remask.networks.reversible import ReversibleStack, mixed, reversible
from remask.networks.rotary import rotary
from remask.networks.segments import segment_mask
from remask.networks.stacks import straight
from remask.networks.transformer import BIDIRECTIONAL, Transformer
from remask.orders import (
    FixedOrder,
    Order,
    SureFirst,
    largest_probability,
    left_to_right,
    negative_entropy,
    random_permutation,
    spread,
    top_gap,
)
from remask.processes import Masking
from remask.randomness import keyed_generator
from remask.samplers.base import blank_prompt
from remask.samplers.bijection import Bijection
from remask.samplers.marginal import subset_nats
from remask.schedules import Linear

V, MASK, L, D = 5, 4, 4, 16
TEXTS = torch.tensor(list(itertools.product(range(MASK), repeat=L)))
FREE = torch.ones_like(TEXTS, dtype=torch.bool)
ORDERS: dict[str, Order] = {
    "left to right": FixedOrder(left_to_right),
    "random": FixedOrder(random_permutation(7)),
    "spread": FixedOrder(spread),
    "confidence": SureFirst(largest_probability),
    "margin": SureFirst(top_gap),
    "entropy": SureFirst(negative_entropy),
}


@dataclass(frozen=True, eq=False)
class Toy:
    """A network as a sampler sees it: each row is one document."""

    network: torch.nn.Module
    process: Masking

    @torch.no_grad()
    def logits(self, z: Tensor, t: Tensor, *, positions: Tensor) -> Tensor:
        """Logits at the true places of `positions` [M V]."""
        return self.network(z, t, segments=torch.ones_like(z), positions=positions)


class Posterior(torch.nn.Module):
    """The exact p(x_i | revealed tokens) of a text whose tokens mostly agree: weight e^{3·(pairs of equal tokens)}."""

    def forward(self, z: Tensor, t: Tensor, *, segments: Tensor, positions: Tensor) -> Tensor:
        """Log p at the true places of `positions` [M V]."""
        del t, segments
        equal = (TEXTS[:, :, None] == TEXTS[:, None, :]).sum((1, 2)).double() / 2
        fits = ((z[:, None] == TEXTS) | (z[:, None] == MASK) | (positions[:, None])).all(-1)
        weight = torch.where(fits, (3.0 * equal).softmax(0), 0.0)
        p = torch.einsum("bk,klv->blv", weight, torch.nn.functional.one_hot(TEXTS, V).double())
        return (p / p.sum(-1, keepdim=True)).log()[positions]


def make_network(stack: Callable, *, layers: int, seed: int = 1, gain: float = 6.0) -> Transformer:
    """A transformer whose random weights are `gain` times those that training begins with."""
    network = Transformer(
        vocab_size=V,
        mask_id=MASK,
        width=D,
        layers=layers,
        heads=2,
        mlp_width=2 * D,
        direction=BIDIRECTIONAL,
        time=Timeless(),
        stack=stack,
    )
    generator = keyed_generator(seed, "weights")
    network.initialise(generator)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "coupling" in name:
                parameter.normal_(std=D**-0.5, generator=generator)
            elif "out.weight" in name or "head" in name:
                parameter.mul_(gain)
    return network.double().eval()


def two_streams(layers: int, *, coupling: Callable = Additive) -> Callable:
    """Reversible blocks alone."""
    make = partial(reversible, branch=partial(Branch, dropout=0.0), coupling=coupling)
    return partial(mixed, makes=[make] * layers)


def toys() -> dict[str, Toy]:
    """A standard and two reversible networks of masks, and the true posterior of a text."""
    process = Masking(schedule=Linear(), vocab_size=V, mask_id=MASK)
    stacks = {
        "standard": partial(straight, residual=partial(Residual, dropout=0.0)),
        "reversible": two_streams(2),
        "affine": two_streams(2, coupling=Affine),
    }
    found = {name: Toy(make_network(stack, layers=2), process) for name, stack in stacks.items()}
    return found | {"true posterior as": Toy(Posterior(), process)}


def tell(claim: str, value: float | str, wanted: str) -> None:
    """One line of the table."""
    shown = f"{value:.2e}" if isinstance(value, float) and abs(value) < 1e-2 else value
    print(f"{claim:<76} {shown if isinstance(shown, str) else f'{shown:.4f}':>12}   {wanted}", flush=True)


# ── the sampler's law ──────────────────────────────────────────────────────────────────────────────────────────────


def likelihoods(toy: Toy) -> None:
    """Σ_x P(x) = 1 for each order and number of rounds; the subset recursion against all orders."""
    worst, nats = 0.0, torch.zeros(len(TEXTS))
    for order, steps in itertools.product(ORDERS.values(), (1, 2, 3, L)):
        nats = Bijection(model=toy, order=order, steps=steps).nats(TEXTS, FREE).sum(-1)
        worst = max(worst, abs(float((-nats).exp().sum()) - 1.0))
    smallest, largest = (float(p) * MASK**L for p in (-nats).exp().aminmax())
    tell("smallest and largest P(x), times the number of texts, last order", f"{smallest:.1e} {largest:.1f}", "not 1")
    tell(f"|Σ P(x) − 1|, {len(ORDERS)} orders × K = 1, 2, 3, {L}, largest", worst, "≤ 1e-10")
    recursion = (-subset_nats(toy, TEXTS, FREE)).exp()
    orders = all_orders()
    chains = [(-Bijection(model=toy, order=order, steps=L).nats(TEXTS, FREE).sum(-1)).exp() for order in orders]
    error = _gap(recursion, torch.stack(chains).mean(0))
    tell(f"subset recursion against the mean over all {len(orders)} orders, largest", error, "≤ 1e-10")
    tell("|Σ subset recursion − 1|", abs(float(recursion.sum()) - 1.0), "≤ 1e-10")


def all_orders() -> list[FixedOrder]:
    """Every order of L places."""
    return [FixedOrder(partial(_ranks, torch.tensor(ranks))) for ranks in itertools.permutations(range(L))]


def _ranks(ranks: Tensor, length: int, device: torch.device) -> Tensor:
    del length
    return ranks.to(device)


def bijections(toy: Toy) -> None:
    """Round trips of noise and text, and the log-determinant against the Jacobian."""
    generator = torch.Generator().manual_seed(5)
    lost, noise_error, within_error, det_error = 0, 0.0, 0.0, 0.0
    for order, steps in itertools.product(ORDERS.values(), (1, 2, L)):
        map_ = Bijection(model=toy, order=order, steps=steps)
        w = torch.rand(TEXTS.shape, generator=generator, dtype=torch.float64)
        there = map_.encode(TEXTS, FREE, within=w)
        back = map_.decode(there.noise, blank_prompt(*TEXTS.shape))
        lost += int((back.ids != TEXTS).any(-1).sum())
        within_error = max(within_error, _gap(back.within, w))
        u = torch.rand(TEXTS.shape, generator=generator, dtype=torch.float64)
        text = map_.decode(u, blank_prompt(*TEXTS.shape))
        noise_error = max(noise_error, _gap(map_.encode(text.ids, FREE, within=text.within).noise, u))
        det_error = max(det_error, _gap(_log_dets(map_, w), -there.nats.sum(-1)))
    tell("texts that encode → decode does not return", str(lost), "0")
    tell("|w − w′| of text → noise → text, largest", within_error, "≤ 1e-10")
    tell("|u − u′| of noise → text → noise, largest", noise_error, "≤ 1e-10")
    tell("log|det ∂u/∂w| (differences, slogdet) − log P(x), largest", det_error, "≤ 1e-6")


def _log_dets(map_: Bijection, w: Tensor, step: float = 1e-6) -> Tensor:
    """log|det ∂u/∂w| of every text, from differences in each w_j."""
    w = w.clamp(0.1, 0.9)
    columns = []
    for j in range(L):
        moved = torch.zeros_like(w)
        moved[:, j] = step
        up, down = (map_.encode(TEXTS, FREE, within=w + sign * moved).noise for sign in (1, -1))
        columns.append((up - down) / (2 * step))
    return torch.linalg.slogdet(torch.stack(columns, -1)).logabsdet


def wrong_likelihoods(toy: Toy) -> None:
    """Numbers that were called likelihoods, and are none."""
    chains = [Bijection(model=toy, order=order, steps=2).nats(TEXTS, FREE).sum(-1) for order in all_orders()]
    peeking = torch.stack(chains).amin(0)  # of all orders the one that suits the text best
    tell(
        "must fail: Σ P(x), K = 2, of an order that is chosen by looking at the text",
        float((-peeking).exp().sum()),
        "> 1",
    )
    pseudo = torch.zeros(len(TEXTS), dtype=torch.float64)
    for i in range(L):
        here = torch.zeros_like(FREE)
        here[:, i] = True
        z = TEXTS.masked_fill(here, MASK)
        log_p = toy.process.log_clean(toy.logits(z, torch.zeros(len(z)), positions=here))
        pseudo += log_p.gather(-1, TEXTS[:, i, None]).squeeze(-1)
    tell("must fail: Σ_x Π_i p(x_i | the other tokens, clean)", float(pseudo.exp().sum()), "far above 1")


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


# ── the network ────────────────────────────────────────────────────────────────────────────────────────────────────


def inverses() -> None:
    """Undoing all blocks, and log-determinants against the Jacobian."""
    for coupling, layers, dtype in itertools.product(
        (Additive, Affine), (4, 16, 32, 64), (torch.float64, torch.float32)
    ):
        if coupling is Affine and layers > 16:
            continue
        tell(
            f"undoing {layers} {coupling.__name__.lower()} blocks, {str(dtype)[6:]}: max|x̂ − x| / rms(x)",
            _inversion_error(two_streams(layers, coupling=coupling), layers, dtype),
            "≤ 1e-10" if dtype == torch.float64 else "≤ 1e-4",
        )
    for coupling in (Additive, Affine):
        stack, x, shared = _stack(two_streams(2, coupling=coupling), 2, torch.float64, length=3)
        by_blocks = stack.log_determinants(x[:1], x.new_zeros(1, 0), **shared).sum(0)
        flat = partial(_both_streams, stack, shared=shared)
        jacobian = torch.autograd.functional.jacobian(flat, torch.stack([x[0], x[0]]).flatten())
        truth = torch.linalg.slogdet(jacobian).logabsdet
        kind, error = coupling.__name__.lower(), abs(float((by_blocks - truth).detach()))
        tell(f"log|det| of 2 {kind} blocks ({float(truth):+.3f}) − slogdet of the Jacobian", error, "≤ 1e-10")
    x = torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for norm in (torch.nn.functional.layer_norm, torch.nn.functional.rms_norm):
        jacobian = torch.autograd.functional.jacobian(partial(norm, normalized_shape=(D,)), x)
        rank = int(torch.linalg.matrix_rank(jacobian, tol=1e-4))
        tell(f"must fail: rank of the Jacobian of {norm.__name__} on a stream", f"{rank} of {D}", f"{D} if invertible")


def _stack(make: Callable, layers: int, dtype: torch.dtype, *, length: int = 8) -> tuple[ReversibleStack, Tensor, dict]:
    network = make_network(make, layers=layers, gain=4.0).to(dtype)
    tokens = torch.randint(MASK, (4, length), generator=torch.Generator().manual_seed(2))
    mask = segment_mask(torch.ones_like(tokens))[:1]
    shared = {"rotation": rotary(length, D // 2, device=tokens.device), "mask": mask}
    stack = network.blocks
    assert isinstance(stack, ReversibleStack)
    return stack, network.embedding(tokens).detach(), shared


@torch.no_grad()
def _inversion_error(make: Callable, layers: int, dtype: torch.dtype) -> float:
    stack, x, shared = _stack(make, layers, dtype)
    shared["mask"] = shared["mask"].expand(len(x), -1, -1, -1)
    condition = x.new_zeros(len(x), 0)
    x1 = x2 = x
    for block in stack:
        x1, x2 = block(x1, x2, condition, **shared)
    back = stack.inverse(x1, x2, condition, **shared)
    return max(_gap(one, x) for one in back) / float(x.square().mean().sqrt())


def _both_streams(stack: ReversibleStack, flat: Tensor, *, shared: dict) -> Tensor:
    x1, x2 = flat.view(2, 1, -1, D)
    for block in stack:
        x1, x2 = block(x1, x2, x1.new_zeros(1, 0), **shared)
    return torch.stack([x1, x2]).flatten()


def gradients() -> None:
    """Gradients through inverted blocks against plain autograd."""
    for coupling in (Additive, Affine):
        found = []
        for carry in (None, stored):
            make = two_streams(6, coupling=coupling)
            network = make_network(make if carry is None else partial(make, carry=carry), layers=6).train()
            tokens = torch.randint(MASK, (4, 8), generator=torch.Generator().manual_seed(3))
            every = torch.ones_like(tokens, dtype=torch.bool)
            logits = network(tokens, torch.zeros(4), segments=torch.ones_like(tokens), positions=every)
            loss = torch.nn.functional.cross_entropy(logits, tokens.flatten())
            found.append(torch.autograd.grad(loss, list(network.parameters())))
        scale = max(float(g.abs().max()) for g in found[1])
        error = max(_gap(a, b) for a, b in zip(*found, strict=True)) / scale
        tell(f"gradients of 6 {coupling.__name__.lower()} blocks, inverted − stored, over the largest", error, "≤ 1e-9")


def main(checks: Sequence[Callable[[Toy], None]] = (likelihoods, bijections, wrong_likelihoods)) -> None:
    """Prints every line."""
    print(f"V = {MASK} tokens and the mask, L = {L}: all {len(TEXTS)} texts; uniform nats {L * math.log(MASK):.3f}")
    for name, toy in toys().items():
        print(f"\n{name} network")
        for check in checks:
            check(toy)
    print("\nreversible blocks")
    inverses()
    gradients()


if __name__ == "__main__":
    main()
