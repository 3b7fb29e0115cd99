r"""Operations by a closed form.

With D the width, F the MLP's hidden width that a token uses, S the places that attend to each other, E experts (0
without), C the condition's width (0 without), V the vocabulary and M the positions where logits are wanted, B rows of S
places cost forward (arXiv:2001.08361, section 2.1; arXiv:2203.15556, appendix F; both without a gate in the MLP)

    B·S · layers · (8 D² + 4 S D + 6 D F + 2 D E)  +  B · (layers · 12 C D + 4 C²)  +  M · (2 D V + 4 C D)      (1)

and backward twice that, where every weight is trained. Reversible blocks cost what standard ones do, and 4 D² a place
more each where their couplings are affine.

A thought of vectors of W features has blocks and a head as in (1) with C = 0, and beside them

    B·L · 4 W D  +  B · 4 D²  +  M · (4 D² + 2 V W)                                                             (2)

for its two maps of L places (of the noisy vector and of the last estimate), the embedding of the time and what it does
before the head, and x̂ = Σ p E, which a network that says vectors does not make. The first look of a step that looks
twice is computed forward alone, and so is x̂ where the loss is of the tokens.

Shape letters: B rows, L tokens a row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.data.batch import Batch
from remask.flops.courses import courses
from remask.flops.rows import loss_of, mean_targets, typical_row
from remask.model import Model
from remask.networks import Transformer
from remask.networks.blocks import GatedMLP, ModulatedFinal
from remask.networks.couplings import Affine
from remask.networks.experts import Experts
from remask.networks.thought import ScratchTrunk, TableCodec, ThoughtNetwork
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.readouts import TokenReadout
from remask.objectives.thought import ThoughtDiffusion, squared_error


def analytic_flops(model: Model, batch: Batch) -> float | None:
    """Operations of training for each target token by (1) and (2), of the same row as `training_flops`.

    Nothing is computed but the noise.

    Returns:
        None for networks that are neither a `Transformer` nor a thought's with blocks and a table of its own.
    """
    return _mean(model, batch, of_thought=_with_gradients, of_tokens=lambda net, c: _times(c) * call_flops(net, c))


def analytic_forward_flops(model: Model, batch: Batch) -> float | None:
    """As `analytic_flops`, of what is computed forward alone: beside `forward_flops`."""
    return _mean(model, batch, of_thought=_forward, of_tokens=call_flops)


def _mean(
    model: Model,
    batch: Batch,
    *,
    of_thought: Callable[[ThoughtNetwork, "Call"], float],
    of_tokens: Callable[[Transformer, "Call"], float],
) -> float | None:
    """The costs of all calls of a row, by one of the functions, for each target token."""
    network = next((m for m in model.network.modules() if isinstance(m, ThoughtNetwork | Transformer)), None)
    if isinstance(network, ThoughtNetwork):
        if not isinstance(network.trunk, ScratchTrunk) or not isinstance(network.codec, TableCodec):
            return None
        return _of_thought(network, model, batch, of_thought) / mean_targets(batch)
    if network is None:
        return None
    mute = _Mute(vocab_size=network.head.out_features, mask_logit_bias=torch.zeros(1, device=model.device))
    with torch.enable_grad():
        loss_of(model.objective, typical_row(model, batch), network=mute)
    return sum(of_tokens(network, call) for call in mute.calls) / mean_targets(batch)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a network.

    Attributes:
        rows: B.
        places: S, twice a row's tokens where it is read with its clean context.
        asked: M.
        trained: whether a gradient is wanted.
        behind: of the places, those that stand behind a row.
        estimated: whether x̂ = Σ p E is made of what is said.
        by_estimate: whether the loss is of that x̂.
    """

    rows: int
    places: int
    asked: int
    trained: bool
    behind: int = 0
    estimated: bool = False
    by_estimate: bool = False


def _times(call: Call) -> int:
    """Of a forward pass: its backward pass costs twice as much."""
    return 3 if call.trained else 1


def call_flops(network: Transformer, call: Call) -> int:
    """Operations of one forward pass by equation (1)."""
    width, vocabulary, layers = network.embedding.embedding_dim, network.head.out_features, len(network.blocks)
    condition = width if isinstance(network.norm, ModulatedFinal) else 0
    place = layers * _block_flops(network.blocks, call, width=width)
    place += 2 * width**2 * sum(isinstance(module, Affine) for module in network.blocks.modules())
    row = layers * 12 * condition * width + 4 * condition**2
    return call.rows * (call.places * place + row) + call.asked * (2 * width * vocabulary + 4 * condition * width)


def _block_flops(blocks: nn.Module, call: Call, *, width: int) -> int:
    """Of a place in a block, without a condition."""
    hidden, experts = _mlp_sizes(blocks)
    return 8 * width**2 + 4 * call.places * width + 6 * width * hidden + 2 * width * experts


def _mlp_sizes(blocks: nn.Module) -> tuple[int, int]:
    """F, the hidden features that a token uses in a block, and E, the experts it chooses from (0 without)."""
    experts = next((module for module in blocks.modules() if isinstance(module, Experts)), None)
    mlp = next(module for module in blocks.modules() if isinstance(module, GatedMLP))
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


# ── of a thought ────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_thought(
    network: ThoughtNetwork, model: Model, batch: Batch, cost: Callable[[ThoughtNetwork, Call], float]
) -> float:
    """Of one row, the mean over the kinds of steps."""
    row, total = typical_row(model, batch), 0.0
    for share, objective in courses(model.objective):
        mute = _MuteThought(network, objective=cast(ThoughtDiffusion, unwrapped(objective)))
        with torch.enable_grad():
            loss_of(objective, row, network=mute)
        total += share * sum(cost(network, call) for call in mute.calls)
    return total


def _forward(network: ThoughtNetwork, call: Call) -> int:
    """By (1) and (2)."""
    return sum(_parts_of_thought(network, call).values())


def _with_gradients(network: ThoughtNetwork, call: Call) -> float:
    """A forward pass and, where one is wanted, its backward pass, in which not everything has two gradients."""
    if not call.trained:
        return _forward(network, call)
    learned = _table_of(network).vectors().requires_grad
    # neither the last estimate nor the time's features have a gradient, and a drawn table's vectors have none either
    both = 3.0 if learned else 2.0
    times = {"recall": 2.0, "read": both, "time": 2.5, "estimate": both if call.by_estimate else 1.0}
    return sum(times.get(name, 3.0) * count for name, count in _parts_of_thought(network, call).items())


def _parts_of_thought(network: ThoughtNetwork, call: Call) -> dict[str, int]:
    trunk = network.trunk
    assert isinstance(trunk, ScratchTrunk)
    width, latent, vocabulary = trunk.width, network.codec.width, trunk.head.out_features
    own, timed = call.rows * (call.places - call.behind), network.time is not None
    said = vocabulary if network.say is None or call.behind else network.say.out_features
    return {
        "blocks": call.rows * call.places * len(trunk.blocks) * _block_flops(trunk.blocks, call, width=width),
        "read": own * 2 * latent * width,
        "recall": own * 2 * latent * width if network.recall is not None else 0,
        "time": call.rows * 4 * width**2 * timed,
        "modulation": call.asked * 4 * width**2 * timed,
        "head": call.asked * 2 * width * said,
        "estimate": call.asked * 2 * vocabulary * latent if call.estimated else 0,
    }


def _table_of(network: ThoughtNetwork) -> TableCodec:
    assert isinstance(network.codec, TableCodec), "asked before"
    return network.codec


class _MuteThought:
    """Stands in for a thought's network: notes what it is asked, and says nothing.

    Args:
        network: whose table the objective reads.
        objective: what is made of the words.
    """

    def __init__(self, network: ThoughtNetwork, *, objective: ThoughtDiffusion) -> None:
        self._names = isinstance(objective.readout, TokenReadout)
        self._by_estimate = self._names and objective.loss is squared_error
        self.codec, self.calls = _table_of(network), list[Call]()
        self._said = network.say.out_features if network.say is not None else network.columns
        self._vocabulary = len(self.codec.vectors())

    def __call__(
        self,
        z: Float[Tensor, "B L W"],
        t: Float[Tensor, "B"],
        *,
        positions: Bool[Tensor, "B L"],
        answer: Int[Tensor, "B A"] | None = None,
        wanted: Bool[Tensor, "B A"] | None = None,
        **others: Any,
    ) -> Float[Tensor, "M X"]:
        """Zeros, after a note."""
        del t, others
        behind = 0 if answer is None else answer.shape[1]
        asked = int((positions if wanted is None else wanted).sum())
        call = Call(
            rows=len(z),
            places=z.shape[1] + behind,
            asked=asked,
            trained=torch.is_grad_enabled(),
            behind=behind,
            estimated=self._names and not behind,
            by_estimate=self._by_estimate and not behind,
        )
        self.calls.append(call)
        return torch.zeros(asked, (None if behind else self._said) or self._vocabulary, device=z.device)
