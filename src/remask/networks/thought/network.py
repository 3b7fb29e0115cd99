r"""A thought: the places behind a question, held as noisy vectors and denoised at once.

With E the table of token vectors, z_t = α_t E[x] + σ_t ε, c(t) an embedding of the time and x̂⁻ the last estimate,
a place of the thought enters the trunk as

    A z_t + b + c(t) + R x̂⁻                                                                                    (1)

and a place of the question as the trunk's own embedding of its token. A matches the spread of those embeddings and b
is at first their mean; R is zero at first (self-conditioning, arXiv:2208.04202, section 3.2). The noise is
variance-preserving and E has mean square 1, so z_t has unit variance at every t. Out of the trunk's hidden states h

    p(x | z_t, question) = softmax(head(h · (1 + γ(t)) + β(t))),        x̂ = Σ_x p(x) E[x]                      (2)

with γ and β zero at first (DiT, arXiv:2212.09748, section 3.2: AdaLN, of the last layer alone).

An answer can be written behind the row from left to right: its tokens see the question, the thought and each other's
past; no place of the row sees them.

Three things can be taken away, to see what they are worth: the time (no c, γ and β), the question (a mask stands for
each of its tokens), and an output of the network's own (the first logits of the vocabulary are taken for a vector, as
by a system that calls the output of a language model its prediction of the noise).

Shape letters: B batch, L places of a row, A places of an answer, N = L + A, W features of a vector, D width, V
vocabulary, M positions at which logits are wanted.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.networks.blocks import TimeEmbedding
from remask.networks.normalisation import unit_rms
from remask.networks.segments import causal_mask, segment_mask
from remask.networks.thought.codecs import FrozenCodec, TableCodec
from remask.networks.thought.trunks import Trunk
from remask.networks.thought.warping import TimeWarp

Sight = Callable[[Int[Tensor, "B L"]], Bool[Tensor, "B 1 L L"]]
"""Segments → who sees whom: `segment_mask` (all of a row) or `causal_mask` (what is left of a place, and itself)."""

BIDIRECTIONAL: Sight = segment_mask
CAUSAL: Sight = causal_mask

Given = Callable[[Int[Tensor, "B L"]], Int[Tensor, "B L"]]
"""The tokens of a question → what the network reads in their places: `shown` or `hidden`."""


def shown(ids: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The question as it is."""
    return ids


def hidden(mask_id: int) -> Given:
    """A mask for each token: how long the question is can be known, and nothing else of it."""
    return partial(torch.full_like, fill_value=mask_id)


class ThoughtNetwork(nn.Module):
    """Equations (1) and (2).

    Args:
        trunk: carries the places.
        codec: token vectors, or a codec of responses.
        sight: `BIDIRECTIONAL` or `CAUSAL`.
        start_id: what stands before the first token of an answer.
        remembers: whether it reads its last estimate; else R is not there.
        speaks: what the network says at each place: `None` for logits over tokens, or W for vectors of so many
            features, by a linear layer in the place of the trunk's head.
        columns: so many logits, the first, are what it says instead of all of them; None: all.
        given: how it reads its question, `shown` or `hidden`.
        timed: whether it knows the time; else nothing of c, γ and β is there.
        warp: what is known of the loss at each time, for an objective that trains where it changes.

    Weights but the trunk's and the codec's hold nothing meaningful until `initialise` is called.
    """

    def __init__(
        self,
        trunk: Trunk,
        codec: TableCodec | FrozenCodec,
        *,
        sight: Sight,
        start_id: int,
        remembers: bool,
        speaks: int | None = None,
        columns: int | None = None,
        given: Given = shown,
        timed: bool = True,
        warp: TimeWarp | None = None,
    ) -> None:
        super().__init__()
        width = trunk.width
        self.trunk, self.codec, self.sight, self.start_id = trunk, codec, sight, start_id
        self.read = nn.Linear(codec.width, width)
        self.recall = nn.Linear(codec.width, width, bias=False) if remembers else None
        self.columns, self.given, self.warp = columns, given, warp
        self.time = TimeEmbedding(width) if timed else None
        self.modulation = nn.Linear(width, 2 * width) if timed else None
        self.say = None if speaks is None else nn.Linear(width, speaks, bias=False)

    def forward(
        self,
        z: Float[Tensor, "B L W"],
        t: Float[Tensor, "B"],
        *,
        ids: Int[Tensor, "B L"],
        noisy: Bool[Tensor, "B L"],
        segments: Int[Tensor, "B L"],
        before: Float[Tensor, "B L W"] | None = None,
        positions: Bool[Tensor, "B L"],
        places: Int[Tensor, "B L"] | None = None,
        answer: Int[Tensor, "B A"] | None = None,
        wanted: Bool[Tensor, "B A"] | None = None,
    ) -> Float[Tensor, "M V"]:
        """What the network says at the true places of `positions`, in row-major order: logits, or vectors.

        Args:
            z: noisy vectors; read where `noisy` is true.
            t: the time of each row, in [0, 1].
            ids: tokens; read where `noisy` is false.
            noisy: the thought.
            segments: 1 for a row's places, 0 for padding, which no text sees.
            before: x̂⁻ of equation (1), read where `noisy` is true; None: nothing yet.
            positions: where an answer of the network is wanted.
            places: where each place stands, as attention counts; None: one behind the other, from 0.
            answer: tokens behind the row, each predicted from those before it; logits at `wanted` are given instead of
                those at `positions`. Padding stands behind a row's last wanted token.
            wanted: tokens of the answer that are predicted; given with `answer`.
        """
        condition = None if self.time is None else self.time(t)
        x = self._read(z, condition, ids=ids, noisy=noisy, before=before)
        mask, real = self.sight(segments), segments != 0
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) if places is None else places
        if answer is None or wanted is None:
            rows, where = positions.nonzero(as_tuple=True)
            hidden = self.trunk.run(x, mask=mask, places=places, real=real)[rows, where]
            hidden = self._modulated(hidden, condition, rows)
            return self.trunk.project(hidden)[:, : self.columns] if self.say is None else self.say(hidden)
        shifted = torch.cat([torch.full_like(answer[:, :1], self.start_id), answer[:, :-1]], 1)
        x = torch.cat([x, self.trunk.embed(shifted).to(x.dtype)], 1)
        more = places[:, -1:] + 1 + torch.arange(answer.shape[1], device=ids.device)
        real, places = torch.cat([real, wanted], 1), torch.cat([places, more], 1)
        hidden = self.trunk.run(x, mask=answering_mask(mask, segments, answer=answer), places=places, real=real)
        rows, where = wanted.nonzero(as_tuple=True)
        return self.trunk.project(self._modulated(hidden[rows, ids.shape[1] + where], condition, rows))

    def _read(
        self,
        z: Float[Tensor, "B L W"],
        condition: Float[Tensor, "B D"] | None,
        *,
        ids: Int[Tensor, "B L"],
        noisy: Bool[Tensor, "B L"],
        before: Float[Tensor, "B L W"] | None,
    ) -> Float[Tensor, "B L D"]:
        """Equation (1), and the question's embeddings."""
        question = self.trunk.embed(self.given(ids))
        thought = self.read(z.to(self.read.weight.dtype))
        if condition is not None:
            thought = thought + condition[:, None]
        if self.recall is not None:
            # of nothing, zero: so that its weights take part in every step, as copies on several processes want
            thought = thought + self.recall((torch.zeros_like(z) if before is None else before).to(thought.dtype))
        return torch.where(noisy[..., None], thought.to(question.dtype), question)

    def _modulated(
        self, hidden: Float[Tensor, "M D"], condition: Float[Tensor, "B D"] | None, rows: Int[Tensor, "M"]
    ) -> Float[Tensor, "M D"]:
        """The factors in front of the head of equation (2), by the row of each place; nothing without a time."""
        if condition is None or self.modulation is None:
            return hidden
        shift, scale = self.modulation(functional.silu(unit_rms(condition[rows]).to(hidden.dtype))).chunk(2, -1)
        return hidden * (1.0 + scale) + shift

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights but the trunk's and the codec's from `generator` (on the weights' device).

        A z and c(t) each get the spread of the trunk's embeddings.
        """
        weight = self.trunk.embedding.weight
        assert isinstance(weight, Tensor)
        table = weight.float()
        spread, fan_in = float(table.std(0).square().mean().sqrt()), self.codec.width
        nn.init.normal_(self.read.weight, std=spread * fan_in**-0.5, generator=generator)
        self.read.bias.copy_(table.mean(0))
        if self.recall is not None:
            nn.init.zeros_(self.recall.weight)
        if self.time is not None and self.modulation is not None:
            first, last = self.time.mlp[0], self.time.mlp[2]
            for layer, scale in ((first, 1.0), (last, spread)):
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5, generator=generator)
                nn.init.zeros_(layer.bias)
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)
        if self.warp is not None:
            self.warp.initialise()
        if self.say is not None:
            nn.init.normal_(self.say.weight, std=0.1 * self.say.in_features**-0.5, generator=generator)

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The trunk's layers, in order: what is compiled or computed again as one."""
        return self.trunk.repeated_layers()

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The weight matrices inside the trunk's layers: what Muon orthogonalises."""
        return self.trunk.hidden_matrices()


def answering_mask(
    mask: Bool[Tensor, "B 1 L L"], segments: Int[Tensor, "B L"], *, answer: Int[Tensor, "B A"]
) -> Bool[Tensor, "B 1 N N"]:
    """Who sees whom in a row followed by an answer.

    ( mask   0      )        the row: as it is
    ( real   causal )        the answer: all text of the row, and itself up to each place
    """
    length = answer.shape[1]
    row = functional.pad(mask, (0, length), value=False)
    real = (segments != 0)[:, None, None].expand(-1, 1, length, -1)
    past = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril().expand(len(mask), 1, -1, -1)
    return torch.cat([row, torch.cat([real, past], -1)], 2)
