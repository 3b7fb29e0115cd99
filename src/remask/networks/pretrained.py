"""A pretrained causal language model as a denoiser: its attention opened by a mask, its habits kept.

Nothing of the library is patched: the backbone is handed a 4-D attention mask, which transformers (5.17 to 5.23 at
least) passes to its attention layers as it is. Three of its ways matter here:

- eager attention *adds* the mask to the scores, so a boolean one would shift scores by 0 or 1 and mask nothing,
  without a word; scaled dot-product attention takes a boolean one. `PretrainedDenoiser` hands each the kind it needs.
- A ready 4-D mask also takes the place of a sliding window: all of a document is seen, however long.
- Without a mask, "sdpa" is causal for every decoder; so a mask is always given, also where it allows everything.

Shape letters: B batch, L length, N places that the backbone reads, P places that a cache holds, K = P + N, V
vocabulary, D width, M positions at which logits are wanted.
"""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.networks.pages import Page
from remask.networks.pretrained_cache import PretrainedCache
from remask.networks.reading import Reading, ResumedReading


@runtime_checkable
class Backbone(Protocol):
    """A causal language model of transformers, as far as it is used here."""

    config: Any
    base_model: Any

    def __call__(self, **inputs: Any) -> Any:
        """Token ids (and a mask, position ids) to an output with `logits`."""
        ...

    def get_input_embeddings(self) -> nn.Module:
        """Ids [B N] → embeddings [B N D]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""
        ...

    def get_output_embeddings(self) -> nn.Module:
        """Last hidden states [M D] → logits [M V]."""
        ...


class PretrainedDenoiser(nn.Module):
    """Tokens to logits through a causal language model; the time is not read.

    The mask token has an input vector of its own, at first the mean of all embeddings: it is all that is new to the
    backbone, and it is trained whatever is frozen.

    Args:
        backbone: emits logits for every id of the tokenizer, `get_output_embeddings` of its last hidden state.
        reading: how rows are laid out: `read_causally`, `read_both_ways` or `read_in_blocks(…)`.
        mask_id: the id of the mask.
        start_id: read before the first token of a document.
        anneal_steps: optimiser steps over which attention opens from causal, in training; 0: at once.
    """

    def __init__(
        self, backbone: Backbone, *, reading: Reading, mask_id: int, start_id: int, anneal_steps: int = 0
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.reading = reading
        self.mask_id, self.start_id, self.anneal_steps = mask_id, start_id, anneal_steps
        self.opened = 1.0
        self.mask_embedding = nn.Parameter(mean_embedding(backbone.get_input_embeddings()))

    def begin_step(self, step: int) -> None:
        """Opens attention as far as optimiser step `step`, from 1, has it: a function of the step alone.

        Only training sees less than everything; an evaluated network (`eval`) is always open.
        """
        self.opened = min(1.0, (step - 1) / self.anneal_steps) if self.anneal_steps else 1.0

    def forward(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        context: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "M V"]:
        """Logits at the M true places of `positions`, in row-major order; the projection runs there alone.

        Args:
            z: noisy tokens.
            t: unread.
            segments: the document of each place, 0 for padding.
            positions: where logits are wanted.
            context: the same rows clean, which each block sees before it; for a reading in blocks only, which takes
                `z` itself for clean where none is given.

        Raises:
            ValueError: when `context` is given and the reading has none.
        """
        del t
        page = self.reading(
            z,
            segments=segments,
            positions=positions,
            context=context,
            start_id=self.start_id,
            opened=self._opened,
        )
        return self._logits(page, positions)

    @property
    def block_length(self) -> int | None:
        """Tokens that see each other while later ones are seen by none; None where all see all."""
        return self.reading.block_length if isinstance(self.reading, ResumedReading) else None

    def open_cache(self, capacity: int) -> PretrainedCache:
        """An empty cache for `resume`, which grows as rows do; `capacity` is unread."""
        del capacity
        return PretrainedCache()

    @torch.no_grad()
    def resume(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        cache: PretrainedCache,
        known: int,
    ) -> Float[Tensor, "M V"]:
        """As `forward` without `context` on a row's first L tokens; places in the cache are not computed again.

        Args:
            z: tokens from the row's start.
            t: unread.
            segments: the document of each token.
            positions: where logits are wanted, behind the tokens that the cache tells of.
            cache: made by `open_cache`; leaves with every place whose state the first `known` tokens settle.
            known: the number of tokens that will not change.

        Raises:
            ValueError: when the reading shows places what comes later, so that nothing can be kept.
        """
        del t
        if not isinstance(self.reading, ResumedReading):
            raise ValueError(
                "this network sees both sides, so it cannot read on where it stopped; call it on whole rows instead"
            )
        page, past = self.reading.resume(
            z,
            segments=segments,
            positions=positions,
            past=cache.past,
            known=known,
            start_id=self.start_id,
            opened=self._opened,
        )
        logits = self._logits(page, positions, past_key_values=cache.states)
        cache.keep(past, read=page.ids.shape[1])
        return logits

    @property
    def _opened(self) -> float:
        """How far attention is open in this call."""
        return self.opened if self.training else 1.0

    def _logits(self, page: Page, positions: Bool[Tensor, "B L"], **states: Any) -> Float[Tensor, "M V"]:
        """Logits at the M true places of `positions`; `states` is the library's cache, as it takes it, or nothing."""
        x = self.backbone.get_input_embeddings()(page.ids)
        hidden = torch.where((page.ids == self.mask_id)[..., None], self.mask_embedding.to(x.dtype), x)
        if page.ids.shape[1]:  # a cache may leave nothing to read, where no logits are wanted
            hidden = self.backbone.base_model(
                inputs_embeds=hidden,
                attention_mask=additive_mask(page.mask, self.backbone, dtype=x.dtype),
                position_ids=page.places,
                use_cache=bool(states),
                **states,
            )[0]
        rows = positions.nonzero()[:, 0]
        return self.backbone.get_output_embeddings()(hidden[rows, page.outputs[positions]])

    def frozen_parameters(self) -> Iterator[nn.Parameter]:
        """The backbone's weights that are not trained, and are found again where it came from."""
        return untrained(self.backbone)

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The backbone's decoder layers, in order: what is sharded, compiled or computed again as one."""
        return decoder_layers(self.backbone)

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """All trained two-dimensional weights that are neither embeddings nor the vocabulary projection."""
        return inner_matrices(self, self.backbone)


def additive_mask(allowed: Bool[Tensor, "B 1 N K"], backbone: Backbone, *, dtype: torch.dtype) -> Tensor:
    """A mask as a backbone's attention takes it: boolean, or added to the scores."""
    if backbone.config._attn_implementation == "sdpa":
        return allowed
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def untrained(backbone: Backbone) -> Iterator[nn.Parameter]:
    """A backbone's weights that are not trained."""
    return (parameter for parameter in backbone.parameters() if not parameter.requires_grad)


def inner_matrices(network: nn.Module, backbone: Backbone) -> Iterator[nn.Parameter]:
    """A network's trained two-dimensional weights that are neither embeddings nor its backbone's projection."""
    tables = [module for module in network.modules() if isinstance(module, nn.Embedding)]
    outside = {id(p) for module in (*tables, backbone.get_output_embeddings()) for p in module.parameters()}
    return (p for p in network.parameters() if p.ndim == 2 and p.requires_grad and id(p) not in outside)


def decoder_layers(backbone: Backbone) -> Iterator[nn.Module]:
    """A backbone's decoder layers, in order."""
    # whatever its architecture calls them, they are the list that holds most of the weights
    lists = (module for module in backbone.base_model.modules() if isinstance(module, nn.ModuleList))
    return iter(max(lists, key=lambda layers: sum(p.numel() for p in layers.parameters())))


@torch.no_grad()
def mean_embedding(embedding: nn.Module) -> Float[Tensor, "D"]:
    """The mean of what an embedding gives for all of its ids, float32."""
    weight: Tensor = embedding.weight  # pyright: ignore[reportAssignmentType]
    ids = torch.arange(weight.shape[0], device=weight.device)
    total = sum((embedding(part).float().sum(0) for part in ids.split(8192)), torch.zeros(1, device=weight.device))
    return total / weight.shape[0]
