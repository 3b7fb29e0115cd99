r"""What a step of training costs in floating-point operations: measured, and by a closed form.

Counted are the multiplications and additions of matrix products, of the forward pass and of the backward pass: what the
mathematics of the model asks for, whatever the machine, so that two models can be compared. Layers that are computed
again to save memory, in the backward pass or within an attention kernel, count once, as is usual (PaLM,
arXiv:2204.02311, appendix B). Attention counts for all pairs of places, hidden ones too, since they are computed.

With D the width, F the MLP's hidden width that a token uses, S the places that attend to each other, E experts (0
without), C the condition's width (0 without), V the vocabulary and M the positions where logits are wanted, B rows of S
places cost forward (arXiv:2001.08361, section 2.1; arXiv:2203.15556, appendix F; both without a gate in the MLP)

    B·S · layers · (8 D² + 4 S D + 6 D F + 2 D E)  +  B · (layers · 12 C D + 4 C²)  +  M · (2 D V + 4 C D)      (1)

and backward twice that, where every weight is trained. Reversible blocks cost what standard ones do, and 4 D² a place
more each where their couplings are affine.

Shape letters: B rows, L tokens a row.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from remask.data.batch import Batch
from remask.model import Model, weights_in
from remask.networks import Transformer
from remask.networks.blocks import GatedMLP, ModulatedFinal
from remask.networks.couplings import Affine
from remask.networks.experts import Experts
from remask.objectives.base import Loss
from remask.objectives.concepts.prior import ConceptPrior
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.thought import ThoughtDiffusion
from remask.randomness import keyed_generator

DRAWS = 64
"""Draws of noise over which the usual number of positions with logits is taken."""


# ── measured ────────────────────────────────────────────────────────────────────────────────────────────────────────


def training_flops(model: Model, batch: Batch) -> float | None:
    """Measured operations of training for each target token, by `torch.utils.flop_counter`.

    One row is computed forward and backward on the model's device; no weight, gradient, count or generator changes.
    The row is one of about the batch's mean number of targets, under noise that hides as much of it as noise does in
    the mean; an objective that changes as training goes on is taken as it is at the end.

    Args:
        model: whole on its device, not yet shared out over processes.
        batch: rows like those of training, on any device.

    Returns:
        None where operations cannot be counted: in 4 bits, in fused experts, or where the row does not fit in memory.
    """
    row = typical_row(model, batch)
    if any(not parameter.is_floating_point() for parameter in model.network.parameters()):
        return None
    try:
        counted = _count(lambda: _train(model, row), model.network)
    except torch.OutOfMemoryError:
        return None
    return None if counted is None else counted / _mean_targets(batch)


def forward_flops(model: Model, batch: Batch) -> float | None:
    """As `training_flops`, of the forward pass alone."""
    row = typical_row(model, batch)

    def work() -> None:
        with torch.no_grad():
            _loss(model, row, network=model.network)

    counted = _count(work, model.network)
    return None if counted is None else counted / _mean_targets(batch)


def _train(model: Model, row: Batch) -> None:
    trained = [parameter for parameter in model.network.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        nats = _loss(model, row, network=model.network).nats
        torch.autograd.grad(nats.sum(), trained, allow_unused=True)


def _loss(model: Model, row: Batch, *, network: Any) -> Loss:
    return model.objective(network, row, generator=keyed_generator("flops", device=row.ids.device))


def _count(work: Callable[[], None], network: nn.Module) -> int | None:
    """Operations of some work; None where a product was made that the counter has no formula for."""
    from torch.utils.flop_counter import FlopCounterMode

    formulas = _attention_formulas()
    # in evaluation layers are computed once and directly, experts count nothing and nothing is dropped
    with _evaluating(network), _Watch() as watch, FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    known = {*counter.flop_registry, *formulas}
    return None if any(_is_product(op) for op in watch.seen if op not in known) else counter.get_total_flops()


def _attention_formulas() -> dict[Any, Callable[..., int]]:
    """Each attention kernel's operations: two products forward and four backward, whatever it computes again.

    torch counts five backward, and for the CPU's kernel none at all.
    """
    from torch.utils.flop_counter import sdpa_flop_count

    def forward(query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
        del others, named
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
        del gradient, others, named
        return 2 * sdpa_flop_count(query, key, value)

    kernels = [f"_scaled_dot_product_{name}" for name in ("efficient_attention", "flash_attention", "cudnn_attention")]
    formulas = {}
    for kernel in (*kernels, "_scaled_dot_product_flash_attention_for_cpu"):
        formulas[getattr(torch.ops.aten, kernel)] = forward
        formulas[getattr(torch.ops.aten, f"{kernel}_backward")] = backward
    return formulas


class _Watch(TorchDispatchMode):
    """Notes which operations are carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


_PRODUCT = re.compile(r"(^|_)(\w*mm|matmul|linear|conv\w*|attention|gemm)(_|\d|$)")


def _is_product(op: Any) -> bool:
    """Whether an operation may hold matrix products: by its name, or because it is none of torch's own."""
    space, _, name = op._qualified_op_name.partition("::")
    return space not in ("aten", "prim", "prims", "profiler") or bool(_PRODUCT.search(name))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


# ── the row that is measured ────────────────────────────────────────────────────────────────────────────────────────


def typical_row(model: Model, batch: Batch) -> Batch:
    """A row of the batch, alone, at a place of a larger batch at which noise hides about as much as in the mean.

    Args:
        model: says what noise does; the row goes to its device.
        batch: rows of which one has about the mean number of targets.
    """
    targets = batch.targets.sum(1)
    nearest = int((targets - targets.float().mean()).abs().argmin())
    alone = batch.to(model.device)
    tables = {name: getattr(alone, name)[[nearest]] for name in ("ids", "segments", "targets", "byte_lengths")}
    row = replace(alone, **tables, rows=torch.zeros(1, dtype=torch.int64, device=model.device), global_size=DRAWS)
    many = replace(
        row,
        **{name: table.expand(DRAWS, -1) for name, table in tables.items()},
        rows=torch.arange(DRAWS, device=model.device),
    )
    asked = _first_question(model, many).sum(1)
    usual = (asked - asked.float().mean()).abs().argmin()
    return replace(row, rows=usual[None])


def _mean_targets(batch: Batch) -> float:
    return float(batch.targets.sum()) / len(batch)


class _Asked(Exception):
    """A network was called."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.positions = positions


def _first_question(model: Model, batch: Batch) -> Bool[Tensor, "B L"]:
    """Where an objective first wants logits; nowhere, where it trains on vectors, which cost the same at any time."""
    if isinstance(unwrapped(model.objective), ConceptPrior | ThoughtDiffusion):
        return torch.zeros_like(batch.targets)

    def ask(*_: Any, positions: Tensor, **__: Any) -> Tensor:
        raise _Asked(positions)

    try:
        _loss(model, batch, network=ask)
    except _Asked as asked:
        return asked.positions
    return torch.zeros_like(batch.targets)


# ── by the closed form ──────────────────────────────────────────────────────────────────────────────────────────────


def analytic_flops(model: Model, batch: Batch) -> float | None:
    """Operations of training for each target token by equation (1), of the same row as `training_flops`.

    Nothing is computed but the noise.

    Returns:
        None for networks that are no `Transformer`.
    """
    network = next((module for module in model.network.modules() if isinstance(module, Transformer)), None)
    if network is None:
        return None
    mute = _Mute(vocab_size=network.head.out_features, mask_logit_bias=torch.zeros(1, device=model.device))
    with torch.enable_grad():
        _loss(model, typical_row(model, batch), network=mute)
    return sum((3 if call.trained else 1) * call_flops(network, call) for call in mute.calls) / _mean_targets(batch)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a network.

    Attributes:
        rows: B.
        places: S, twice a row's tokens where it is read with its clean context.
        asked: M.
        trained: whether a gradient is wanted.
    """

    rows: int
    places: int
    asked: int
    trained: bool


def call_flops(network: Transformer, call: Call) -> int:
    """Operations of one forward pass by equation (1)."""
    width, vocabulary, layers = network.embedding.embedding_dim, network.head.out_features, len(network.blocks)
    hidden, experts = _mlp_sizes(network)
    condition = width if isinstance(network.norm, ModulatedFinal) else 0
    place = layers * (8 * width**2 + 4 * call.places * width + 6 * width * hidden + 2 * width * experts)
    place += 2 * width**2 * sum(isinstance(module, Affine) for module in network.blocks.modules())
    row = layers * 12 * condition * width + 4 * condition**2
    return call.rows * (call.places * place + row) + call.asked * (2 * width * vocabulary + 4 * condition * width)


def _mlp_sizes(network: Transformer) -> tuple[int, int]:
    """F, the hidden features that a token uses in a block, and E, the experts it chooses from (0 without)."""
    experts = next((module for module in network.blocks.modules() if isinstance(module, Experts)), None)
    mlp = next(module for module in network.blocks.modules() if isinstance(module, GatedMLP))
    chosen, number = (experts.per_token, len(experts.experts)) if experts is not None else (1, 0)
    return chosen * mlp.out.in_features, number


@dataclass
class _Mute:
    """Stands in for a network: notes what it is asked, and answers that all tokens are as likely."""

    vocab_size: int
    mask_logit_bias: Tensor
    calls: list[Call] = field(default_factory=list)

    def __call__(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        context: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "M V"]:
        """Zeros, after a note."""
        del t, segments
        asked, places = int(positions.sum()), z.shape[1] * (1 if context is None else 2)
        self.calls.append(Call(rows=len(z), places=places, asked=asked, trained=torch.is_grad_enabled()))
        return torch.zeros(asked, self.vocab_size, device=z.device)


# ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────────────


def active_parameters(network: nn.Module) -> int:
    """The parameters that one token uses: all of them, but for those of the experts that are not chosen.

    Args:
        network: of remask, or around a pretrained model that says how many experts it has and uses.
    """
    total = sum(weights_in(parameter) for parameter in network.parameters())
    ours = [part for part in network.modules() if isinstance(part, Experts)]
    if ours:
        return total - sum(parameter.numel() for part in ours for parameter in part.unused())
    chosen, number = _pretrained_experts(network)
    inside = sum(weights_in(p) for name, p in network.named_parameters() if ".experts." in name)
    return total - inside * (number - chosen) // number


def _pretrained_experts(network: nn.Module) -> tuple[int, int]:
    """How many experts a token uses in a pretrained model, and of how many; 1 of 1 where there are none."""
    backbones = [getattr(module, "backbone", None) for module in network.modules()]
    config: Any = next((backbone.config for backbone in backbones if backbone is not None), None)
    known: Mapping[str, Any] = vars(config) if config is not None else {}
    number = next(
        (known[key] for key in ("num_experts", "num_local_experts", "n_routed_experts") if key in known), None
    )
    return (int(known["num_experts_per_tok"]), int(number)) if number and "num_experts_per_tok" in known else (1, 1)
