"""What carries a thought from its embedding to the vocabulary: our own blocks, or a pretrained language model.

Shape letters: B batch, N places, D width, V vocabulary, M positions at which logits are wanted.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.networks.blocks import Attention, GatedMLP, Residual
from remask.networks.normalisation import UnitRMS
from remask.networks.pretrained import (
    Backbone,
    additive_mask,
    decoder_layers,
    inner_matrices,
    mean_embedding,
    untrained,
)
from remask.networks.rotary import rotary_at
from remask.networks.stacks import Stack, straight

NEIGHBOURS = (-1, 1, -2, 2, -3, 3, -4, 4)
"""Relative places that heads begin by looking at, nearest first."""


@runtime_checkable
class Trunk(Protocol):
    """The body of a language model, asked piece by piece."""

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def embedding(self) -> nn.Module:
        """Its table of tokens, with a `weight` [V D]."""
        ...

    def embed(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Tokens as the trunk reads them, the mask as well."""
        ...

    def run(
        self,
        x: Float[Tensor, "B N D"],
        *,
        mask: Bool[Tensor, "B 1 N N"],
        places: Int[Tensor, "B N"],
        real: Bool[Tensor, "B N"],
    ) -> Float[Tensor, "B N D"]:
        """What the projection reads.

        Args:
            x: places as the trunk reads them.
            mask: who sees whom; every place sees itself.
            places: where each stands, from 0.
            real: text, as against padding.
        """
        ...

    def project(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        """Logits."""
        ...

    def projection(self) -> Iterator[nn.Parameter]:
        """The weights of `project` that nothing else reads."""
        ...

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The layers, in order: what is compiled or computed again as one."""
        ...

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The trained weight matrices of the layers."""
        ...


class ScratchTrunk(nn.Module):
    """Pre-norm blocks of the token transformer, that do not see the time.

    Args:
        vocab_size: V, every id with the mask.
        width: D; a multiple of `heads`, with an even quotient.
        layers: blocks.
        heads: of attention.
        mlp_width: hidden width of the gated MLP, or of each expert.
        dropout: share of each branch's output that is dropped in training.
        mlp: (width, mlp_width) → a `GatedMLP` or `Experts`.

    Weights hold nothing meaningful until `initialise` is called.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        dropout: float = 0.0,
        mlp: Callable[[int, int], nn.Module] = GatedMLP,
    ) -> None:
        super().__init__()
        self.head_width = width // heads
        self.embedding = nn.Embedding(vocab_size, width)
        inner = [(Attention(width, heads), mlp(width, mlp_width)) for _ in range(layers)]
        self.blocks: Stack = straight(width, inner, residual=partial(Residual, dropout=dropout))
        self.norm = UnitRMS()
        self.head = nn.Linear(width, vocab_size, bias=False)

    def tie_head(self) -> None:
        """Makes the vocabulary projection share the embedding's weights."""
        self.head.weight = self.embedding.weight

    @property
    def width(self) -> int:
        """D."""
        return self.embedding.embedding_dim

    def embed(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Tokens by the table."""
        return self.embedding(ids)

    def run(
        self,
        x: Float[Tensor, "B N D"],
        *,
        mask: Bool[Tensor, "B 1 N N"],
        places: Int[Tensor, "B N"],
        real: Bool[Tensor, "B N"],
    ) -> Float[Tensor, "B N D"]:
        """As `Trunk.run`."""
        rotation = rotary_at(places, self.head_width)
        nothing = x.new_zeros(len(x), 0)
        return self.norm(self.blocks(x, nothing, rotation=rotation, mask=mask, real=real))

    def project(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        """Logits."""
        return self.head(hidden)

    def projection(self) -> Iterator[nn.Parameter]:
        """The head's, unless it is the embedding's."""
        if self.head.weight is not self.embedding.weight:
            yield from self.head.parameters()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights from `generator` (on the weights' device), as `Transformer.initialise` does and says why.

        Coordinate 0 of all embeddings is one constant with a fifth of their power, for `Attention.look_beside`.
        """
        spread = 0.5 / self.width if self.head.weight is self.embedding.weight else 0.2
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                scale = 0.1 if name.endswith(("out.weight", "router.weight")) else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[-1] ** -0.5, generator=generator)
        nn.init.normal_(self.head.weight, std=0.02, generator=generator)
        nn.init.normal_(self.embedding.weight, std=spread, generator=generator)
        self.embedding.weight[:, 0] = 0.5 * spread * self.width**0.5
        beside = iter(NEIGHBOURS)
        for attention in islice((m for m in self.blocks.modules() if isinstance(m, Attention)), 2):
            attention.look_beside(list(islice(beside, attention.heads)))

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The blocks."""
        return self.blocks.repeated_layers()

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The weight matrices inside the blocks."""
        return (parameter for parameter in self.blocks.parameters() if parameter.ndim == 2)


class PretrainedTrunk(nn.Module):
    """A causal language model of transformers, its attention opened by a mask; nothing of the library is patched.

    The mask token, which stands for a dropped question, has an input vector of its own, at first the mean of all.

    Args:
        backbone: emits logits for every id of the tokenizer, `get_output_embeddings` of its last hidden state.
        mask_id: the id of the mask.
        reads_masks: whether any training row holds a mask; else its vector is not trained.
    """

    def __init__(self, backbone: Backbone, *, mask_id: int, reads_masks: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.mask_id = mask_id
        self.mask_embedding = nn.Parameter(mean_embedding(backbone.get_input_embeddings()), requires_grad=reads_masks)

    @property
    def width(self) -> int:
        """D."""
        return self.mask_embedding.shape[0]

    @property
    def embedding(self) -> nn.Module:
        """The library's."""
        return self.backbone.get_input_embeddings()

    def embed(self, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """The library's embeddings, and the mask's own."""
        x = self.backbone.get_input_embeddings()(ids)
        return torch.where((ids == self.mask_id)[..., None], self.mask_embedding.to(x.dtype), x)

    def run(
        self,
        x: Float[Tensor, "B N D"],
        *,
        mask: Bool[Tensor, "B 1 N N"],
        places: Int[Tensor, "B N"],
        real: Bool[Tensor, "B N"],
    ) -> Float[Tensor, "B N D"]:
        """As `Trunk.run`; padding is computed like any other place, and seen by none."""
        del real
        return self.backbone.base_model(
            inputs_embeds=x,
            attention_mask=additive_mask(mask, self.backbone, dtype=x.dtype),
            position_ids=places,
            use_cache=False,
        )[0]

    def project(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        """Logits by the library's head."""
        return self.backbone.get_output_embeddings()(hidden)

    def projection(self) -> Iterator[nn.Parameter]:
        """The head's, unless it is the embedding's."""
        shared = {id(parameter) for parameter in self.embedding.parameters()}
        return (p for p in self.backbone.get_output_embeddings().parameters() if id(p) not in shared)

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """The backbone's weights that are not trained, and are found again where it came from."""
        return untrained(self.backbone)

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The backbone's decoder layers."""
        return decoder_layers(self.backbone)

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """All trained two-dimensional weights that are neither embeddings nor the vocabulary projection."""
        return inner_matrices(self, self.backbone)
