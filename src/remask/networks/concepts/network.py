"""A text through a bottleneck: an encoder to C concept vectors, and a decoder that knows the text through them alone.

Shape letters: B rows, N source tokens, L places denoised, C concepts, D width, W width of a concept, V vocabulary, M
places at which logits are wanted.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.networks.blocks import Attention, ModulatedBranch
from remask.networks.concepts.co_occurrence import CoOccurrence
from remask.networks.concepts.encoders import TokenStates
from remask.networks.concepts.layers import LocalConvolution
from remask.networks.concepts.letters import Letters, Rarity, UnitTogether
from remask.networks.concepts.stretches import StretchStates
from remask.networks.concepts.vectors import Concepts
from remask.networks.normalisation import UnitRMS, unit_rms
from remask.networks.transformer import BIDIRECTIONAL

Hear = Callable[[Concepts], Concepts | None]
"""Is told the concepts of a forward pass, and may give others to decode from."""


SPREAD = 0.2
"""Standard deviation of embeddings."""
SURE = 5.0
"""The logit that the vocabulary projection begins by giving the token whose embedding it reads."""


class Narrowed(nn.Module):
    """A linear map to fewer features, each vector then of mean 0 and variance 1.

    Args:
        width: D.
        latent_width: W.
    """

    def __init__(self, width: int, latent_width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, latent_width, bias=False)

    def forward(self, x: Float[Tensor, "B C D"]) -> Float[Tensor, "B C W"]:
        """The concepts as they leave the encoder; float32 at least."""
        narrow = self.down(x)
        wide = narrow.to(torch.promote_types(narrow.dtype, torch.float32))
        return functional.layer_norm(wide, wide.shape[-1:])


class ConceptNetwork(nn.Module):
    """Leave-one-out logits of masked tokens, given what an encoder says of another text.

    With masking noise a hidden token says nothing of itself, so a decoder that sees it emits log p(x_i | z without i);
    other noises are not for this network.

    Args:
        vocab_size: V, every id with the mask.
        width: D.
        encoder: (embedded tokens, real) → vectors [B C D] and which are real (networks/concepts/encoders.py).
        decoder: embedded noisy tokens and concepts → states [M D] (networks/concepts/decoders.py); None: nothing is
            ever written from the concepts, so there is no vocabulary projection either.
        latent_width: W, of the vectors between the two; None: D, of root mean square 1.
        source_embedding: token vectors of the encoder alone; None: it shares those of the decoder.
        letters: what is added to the token vectors that the encoder reads; None: nothing.
        rarity: how much each token counts for the encoder, and each concept among those of its text; None: all alike.
        co_occurrence: what stands in the second band of the token vectors that the encoder reads; None: there is none.

    Weights hold nothing meaningful until `initialise` is called.
    """

    READERS = ("encoder.", "source_embedding.", "letters.", "rarity.", "co_occurrence.", "narrow.")
    """What the names of those weights begin with that only reading a text needs; the others decode."""

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        encoder: nn.Module,
        decoder: nn.Module | None,
        latent_width: int | None = None,
        source_embedding: nn.Embedding | None = None,
        letters: Letters | None = None,
        rarity: Rarity | None = None,
        co_occurrence: CoOccurrence | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.latent_width = latent_width
        self.embedding = nn.Embedding(vocab_size, width)
        self.source_embedding = source_embedding
        self.letters, self.rarity, self.co_occurrence = letters, rarity, co_occurrence
        self.encoder = encoder
        whole = UnitRMS() if rarity is None else UnitTogether()
        self.narrow = whole if latent_width is None else Narrowed(width, latent_width)
        self.widen = nn.Identity() if latent_width is None else nn.Linear(latent_width, width, bias=False)
        self.decoder = decoder
        self.head = None if decoder is None else nn.Linear(width, vocab_size, bias=False)
        self.head_scale: nn.Parameter | None = None

    @property
    def concepts(self) -> int | None:
        """C; None where texts have as many as they have tokens, or more of them the longer they are."""
        return self.encoder.concepts  # pyright: ignore[reportReturnType]

    @property
    def most_concepts(self) -> int | None:
        """C, or the most that a text can have; None where that goes with its length alone."""
        return self.concepts or getattr(self.encoder, "most", None)

    @property
    def bands(self) -> int:
        """Parts of a concept's features, of one size, that mean something each by itself (stretches.py)."""
        return getattr(self.encoder, "bands", 1) if self.latent_width is None else 1

    @property
    def counted_band(self) -> int | None:
        """Which of the `bands` holds what words stand near (co_occurrence.py), which nothing trains; None: none."""
        return None if self.co_occurrence is None or self.bands == 1 else 1

    def tie_head(self) -> None:
        """Makes the vocabulary projection the embedding times one learned number."""
        assert self.head is not None, "a network without a decoder has no vocabulary projection"
        self.head.weight = self.embedding.weight
        self.head_scale = nn.Parameter(torch.ones(1))

    def freeze_encoder(self) -> None:
        """Leaves the encoder as it was drawn: the baseline that shows what training one is worth."""
        for part in (self.encoder, self.narrow, self.source_embedding, self.letters, self.rarity, self.co_occurrence):
            if part is not None:
                part.requires_grad_(False)

    def forward(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        source: Int[Tensor, "B N"] | None = None,
        source_real: Bool[Tensor, "B N"] | None = None,
        kept: Int[Tensor, "B"] | None = None,
        hear: Hear | None = None,
    ) -> Float[Tensor, "M V"]:
        """Logits at the M true places of `positions`, in row-major order; the projection runs there alone.

        Args:
            z: noisy tokens.
            t: the time of each row.
            segments: the text of each place, 0 for padding; the texts of a row share its concepts.
            positions: where logits are wanted.
            source: what the encoder reads; None: nothing, and no concept is real.
            source_real: which source tokens are there; None: all.
            kept: how many of the first concepts each row keeps; None: all.
            hear: is told the concepts, with their gradient, before any is hidden; what it returns takes their place.
        """
        if source is None:
            source = z[:, :1]
            source_real = torch.zeros_like(source, dtype=torch.bool)
        concepts = self.encode(
            source, real=torch.ones_like(source, dtype=torch.bool) if source_real is None else source_real
        )
        if hear is not None:
            heard = hear(concepts)
            concepts = concepts if heard is None else heard
        if kept is not None:
            concepts = concepts.keep(kept)
        return self.decode(z, t, concepts, segments=segments, positions=positions)

    def encode(self, source: Int[Tensor, "B N"], *, real: Bool[Tensor, "B N"]) -> Concepts:
        """The concepts of some texts; tokens that are not real, wherever they stand, change nothing.

        Args:
            source: ids; those that are not real may be any.
            real: which tokens are there. A text without one has no real concept.
        """
        vectors, there = self.encoder(self.read(source), real=real)
        told = {"real": there} if isinstance(self.narrow, UnitTogether) else {}
        return Concepts(vectors=self.narrow(vectors, **told), real=there)

    def read(self, source: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """The tokens as the encoder meets them: of root mean square 1, times how rare they are where that counts."""
        vectors = (self.embedding if self.source_embedding is None else self.source_embedding)(source)
        if self.letters is not None:
            vectors = vectors + self.letters(source)
        vectors = unit_rms(vectors) if self.co_occurrence is None else self._in_company(vectors, source)
        return vectors if self.rarity is None else vectors * self.rarity(source)

    def _in_company(self, vectors: Float[Tensor, "B N D"], source: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Token vectors with what each keeps company with as their second band, every band of root mean square 1."""
        assert self.co_occurrence is not None, "asked by `read`"
        first, _, *others = vectors.chunk(self.encoder.bands, -1)  # pyright: ignore[reportCallIssue, reportArgumentType]
        company = self.co_occurrence(source).to(vectors.dtype)
        return torch.cat([unit_rms(first), company, *(unit_rms(part) for part in others)], -1)

    def hear_counts(self, counts: Int[Tensor, "V"]) -> None:
        """Is told how often each token stands in the training text, before training begins."""
        if self.rarity is not None:
            self.rarity.hear(counts)

    def hear_company(self, vectors: Float[Tensor, "V W"]) -> None:
        """Is told what each token stands near in the training text, before training begins."""
        if self.co_occurrence is not None:
            self.co_occurrence.hear(vectors)

    def take_counts(self, other: "ConceptNetwork") -> None:
        """Is told what another network of this kind has heard of the training text; nothing that was learned."""
        if self.rarity is not None and other.rarity is not None:
            self.rarity.shares.data.copy_(other.rarity.shares)

    def decode(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        concepts: Concepts,
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "M V"]:
        """As `forward`, from concepts that are there already."""
        if self.decoder is None or self.head is None:
            assert not positions.any(), "a network without a decoder is asked for no token"
            return concepts.vectors.new_zeros(0, self.embedding.num_embeddings)
        tokens, vectors = unit_rms(self.embedding(z)), self.widen(concepts.vectors)
        states = self.decoder(tokens, t, vectors, concepts.real, segments=segments, positions=positions)
        return self.head(states if self.head_scale is None else states * self.head_scale.to(states.dtype))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights from `generator` (on the weights' device).

        A concept begins as the mean of the embeddings in its stretch of the text, a decoder's place hands on what it
        reads of concepts, and the vocabulary projection is the embedding, scaled so that a place which holds a token's
        embedding gives it SURE nats over the others: words of the text can be copied from the first steps on, which a
        network would otherwise learn last. The first loss is log V within a few per cent.

        Other matrices are normal with variance 1/fan-in, those that write to a stream which no gate closes a tenth of
        that deviation; AdaLN-Zero's gates, shifts and scales are zero.
        """
        gated = {id(p) for module in self.modules() if isinstance(module, ModulatedBranch) for p in module.parameters()}
        for name, parameter in self.named_parameters():
            if "modulation" in name or name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                scale = 0.1 if name.endswith("out.weight") and id(parameter) not in gated else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[-1] ** -0.5, generator=generator)
        if self.rarity is not None:
            self.rarity.begin()
        if self.co_occurrence is not None:
            self.co_occurrence.begin(generator)
        for table in (self.embedding, self.source_embedding, None if self.letters is None else self.letters.table):
            if table is not None:
                nn.init.normal_(table.weight, std=SPREAD, generator=generator)
                if isinstance(self.encoder, TokenStates):  # for `Attention.look_beside`
                    table.weight[:, 0] = 0.5 * SPREAD * math.sqrt(self.width)
        scale = SURE / (SPREAD * self.width)
        if self.head_scale is not None:
            self.head_scale.fill_(scale)
        elif self.head is not None:
            self.head.weight.copy_(scale * self.embedding.weight)
        self._begin(generator)

    def _begin(self, generator: torch.Generator) -> None:
        """What attention and convolutions look at first."""
        for convolution in (module for module in self.modules() if isinstance(module, LocalConvolution)):
            convolution.look_beside()
        beside = iter(BIDIRECTIONAL.neighbours)
        if isinstance(self.encoder, TokenStates | StretchStates):
            for attention in islice((m for m in self.encoder.modules() if isinstance(m, Attention)), 2):
                attention.look_beside(list(islice(beside, attention.heads)))
        for part in (self.encoder, self.decoder):
            begin = getattr(part, "begin", None)
            if begin is not None:
                begin(generator)

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The layers of the encoder, then those of the decoder: what is sharded, compiled or computed again as one."""
        for part in (self.encoder, self.decoder):
            layers = getattr(part, "layers", getattr(part, "blocks", ()))
            yield from layers

    def begin_step(self, step: int) -> None:
        """Tells an encoder whose depth is drawn which optimiser step begins."""
        begin = getattr(self.encoder, "begin_step", None)
        if begin is not None:
            begin(step)

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The trained weight matrices inside the layers: what Muon orthogonalises."""
        inside = (module for layer in self.repeated_layers() for module in layer.modules())
        linear = {id(module.weight) for module in inside if isinstance(module, nn.Linear)}
        return (p for p in self.parameters() if id(p) in linear and p.requires_grad)
