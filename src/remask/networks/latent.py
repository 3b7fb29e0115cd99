"""A transformer over a few vectors with noise in them: what denoises latents.

Pre-norm blocks as in the token transformer, the time entering by AdaLN-Zero (DiT, arXiv:2212.09748). Each vector has a
place of its own, known by a learned code and by rotary distances to the others.

Shape letters: B batch, S vectors, W features of a vector, D width, H heads.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from remask.networks.blocks import (
    Attention,
    GatedMLP,
    ModulatedFinal,
    ModulatedResidual,
    TimeEmbedding,
    bounded,
)
from remask.networks.rotary import rotary
from remask.networks.stacks import straight


class LatentTransformer(nn.Module):
    """(z_t, t) → a vector for each of S noisy ones, small at the start.

    Where the output is read as a velocity and clean vectors have unit variance, a network that says 0 is the best
    linear filter: that is where training begins.

    Args:
        vectors: S.
        features: W.
        width: D; a multiple of `heads`, with an even quotient.
        layers: blocks.
        heads: H.
        mlp_width: hidden features of the gated MLP.
        dropout: share of each branch's output that is dropped in training.
        bound: of AdaLN's shifts, scales and gates.

    Weights hold nothing meaningful until `initialise` is called.
    """

    def __init__(
        self,
        *,
        vectors: int,
        features: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        dropout: float,
        bound: Callable[[Tensor], Tensor] = bounded,
    ) -> None:
        super().__init__()
        self.head_width = width // heads
        self.read = nn.Linear(features, width, bias=False)
        self.places = nn.Parameter(torch.zeros(vectors, width))
        self.time = TimeEmbedding(width)
        residual = partial(ModulatedResidual, dropout=dropout, condition_width=width, bound=bound)
        inner = [(Attention(width, heads), GatedMLP(width, mlp_width)) for _ in range(layers)]
        self.blocks = straight(width, inner, residual=residual)
        self.norm = ModulatedFinal(width, condition_width=width, bound=bound)
        self.head = nn.Linear(width, features, bias=False)

    def forward(
        self, z: Float[Tensor, "B S W"], t: Float[Tensor, "B"], *, real: Bool[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B S W"]:
        """What the network says of each vector, in the dtype of `z`.

        Args:
            z: noisy vectors, of about unit variance.
            t: the time of each row, in [0, 1].
            real: vectors that are there; the others are seen by none. None: all.
        """
        count = z.shape[1]
        seen = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device) if real is None else real
        x = self.read(z.to(self.read.weight.dtype)) + self.places
        condition = self.time(t)
        itself = torch.eye(count, dtype=torch.bool, device=z.device)
        mask = seen[:, None, None] | itself  # a vector that is not there sees itself, so that nothing is NaN
        x = self.blocks(x, condition, rotation=rotary(count, self.head_width, device=z.device), mask=mask)
        everyone = condition[:, None].expand(-1, count, -1).flatten(0, 1)
        return self.head(self.norm(x.flatten(0, 1), everyone)).view(z.shape).to(z.dtype)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights from `generator` (on the weights' device).

        Matrices are normal with variance 1/fan-in, AdaLN-Zero's shifts, scales and gates zero, the head a tenth of its
        usual deviation: what is said has a mean square of 0.01.
        """
        for name, parameter in self.named_parameters():
            if "modulation" in name or name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                scale = 0.1 if name == "head.weight" else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[-1] ** -0.5, generator=generator)
        nn.init.normal_(self.places, std=0.5, generator=generator)

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The blocks, in order: what is sharded, compiled or computed again as one."""
        return self.blocks.repeated_layers()

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The weight matrices inside the blocks: what Muon orthogonalises."""
        return (parameter for parameter in self.blocks.parameters() if parameter.ndim == 2)
