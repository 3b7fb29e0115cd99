r"""A response as a few narrow Gaussian vectors, and the response again out of them: a small variational autoencoder.

A reader turns the R tokens of a response, filled up with ends of text, into states; each k neighbours together become
one of the S = R / k vectors,

    q(y_s | x) = N(μ_s(x), diag σ_s(x)²),        μ_s, log σ_s² = U [h_{ks}; …; h_{ks+k−1}],                         (1)

and a decoder that sees nothing but the vectors writes all R tokens at once (arXiv:1312.6114, section 3; as the latent
of a diffusion arXiv:2112.10752, section 3.1, and of text arXiv:2212.09462). The reader is trained with the rest, or a
language model that stays as it is (arXiv:2402.19097).

Shape letters: B rows, R tokens of a response, S vectors, k tokens a vector, W features of a vector, D width, E width of
the reader, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remask.networks.blocks import Attention, GatedMLP, Residual
from remask.networks.normalisation import UnitRMS, unit_rms
from remask.networks.pretrained import Backbone, additive_mask
from remask.networks.rotary import rotary
from remask.networks.segments import causal_mask
from remask.networks.stacks import Stack, straight

NARROW = -4.0
"""log σ² of every coordinate at the start."""


@runtime_checkable
class Reader(Protocol):
    """Tokens to states."""

    @property
    def width(self) -> int:
        """E."""
        ...

    def __call__(self, ids: Int[Tensor, "B R"]) -> Float[Tensor, "B R E"]:
        """The state of each token."""
        ...

    def repeated_layers(self) -> Iterator[nn.Module]:
        """Its trained layers, in order."""
        ...


class OwnReader(nn.Module):
    """Blocks of our own, in which each token sees all.

    Args:
        vocab_size: V.
        width: E.
        blocks: its layers.
        head_width: features a head.
    """

    def __init__(self, vocab_size: int, width: int, blocks: Stack, *, head_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.blocks, self.head_width = blocks, head_width

    @property
    def width(self) -> int:
        """E."""
        return self.embedding.embedding_dim

    def forward(self, ids: Int[Tensor, "B R"]) -> Float[Tensor, "B R E"]:
        """The state of each token."""
        return through(self.blocks, unit_rms(self.embedding(ids)), head_width=self.head_width)

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The blocks."""
        return self.blocks.repeated_layers()


class FrozenReader(nn.Module):
    """The last hidden states of a causal language model, which reads as it was taught to.

    Args:
        backbone: of transformers; its vocabulary projection is not read.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        weight = backbone.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        self._width = weight.shape[1]

    @property
    def width(self) -> int:
        """E."""
        return self._width

    @torch.no_grad()
    def forward(self, ids: Int[Tensor, "B R"]) -> Float[Tensor, "B R E"]:
        """The state of each token, which knows the tokens before it and itself."""
        x = self.backbone.get_input_embeddings()(ids)
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        seen = additive_mask(causal_mask(torch.ones_like(ids)), self.backbone, dtype=x.dtype)
        return self.backbone.base_model(inputs_embeds=x, attention_mask=seen, position_ids=places, use_cache=False)[0]

    def train(self, mode: bool = True) -> "FrozenReader":
        """As for any module, but that the model never drops a unit."""
        super().train(mode)
        self.backbone.eval()  # pyright: ignore[reportAttributeAccessIssue]
        return self

    def repeated_layers(self) -> Iterator[nn.Module]:
        """None is trained."""
        return iter(())


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of some responses.

    Attributes:
        logits: of their tokens, out of vectors drawn from (1) [B R V].
        mean: μ of (1) [B S W].
        log_variance: log σ² of (1) [B S W].
    """

    logits: Float[Tensor, "B R V"]
    mean: Float[Tensor, "B S W"]
    log_variance: Float[Tensor, "B S W"]


class TextAutoencoder(nn.Module):
    """Equation (1), and a decoder.

    Args:
        vocab_size: V, every id with the mask.
        reader: the encoder's lower part.
        length: R, a multiple of `stride`.
        stride: k.
        latent_width: W.
        width: D, of the decoder.
        layers: of the decoder.
        heads: of its attention.
        mlp_width: hidden features of its gated MLPs.
        dropout: share of each branch's output that is dropped in training.

    Weights but those of a pretrained reader hold nothing meaningful until `initialise` is called.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        reader: Reader,
        length: int,
        stride: int,
        latent_width: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        assert length % stride == 0, "the schema refuses another length"
        self.length, self.stride, self.latent_width = length, stride, latent_width
        self.head_width = width // heads
        self.reader = reader
        self.narrow = nn.Linear(stride * reader.width, 2 * latent_width)
        self.widen = nn.Linear(latent_width, stride * width)
        self.blocks = own_blocks(width, layers=layers, heads=heads, mlp_width=mlp_width, dropout=dropout)
        self.norm = UnitRMS()
        self.head = nn.Linear(width, vocab_size, bias=False)

    @property
    def vectors(self) -> int:
        """S."""
        return self.length // self.stride

    def forward(self, ids: Int[Tensor, "B R"], noise: Float[Tensor, "B S W"]) -> Written:
        """Responses through vectors drawn from (1); `noise` is standard normal."""
        mean, log_variance = self.posterior(ids)
        drawn = mean + (0.5 * log_variance).exp() * noise.to(mean.dtype)
        return Written(logits=self.decode(drawn), mean=mean, log_variance=log_variance)

    def posterior(self, ids: Int[Tensor, "B R"]) -> tuple[Float[Tensor, "B S W"], Float[Tensor, "B S W"]]:
        """μ and log σ² of (1), float32 at least."""
        states = unit_rms(self.reader(ids)).to(self.narrow.weight.dtype)
        said = self.narrow(states.unflatten(1, (self.vectors, self.stride)).flatten(2))
        mean, log_variance = said.to(torch.promote_types(said.dtype, torch.float32)).chunk(2, -1)
        return mean, log_variance

    def encode(self, ids: Int[Tensor, "B R"]) -> Float[Tensor, "B S W"]:
        """μ of (1): the vectors that stand for responses."""
        return self.posterior(ids)[0]

    def decode(self, vectors: Float[Tensor, "B S W"]) -> Float[Tensor, "B R V"]:
        """Logits of all tokens, from vectors alone."""
        x = self.widen(vectors.to(self.widen.weight.dtype)).unflatten(-1, (self.stride, -1)).flatten(1, 2)
        return self.head(self.norm(through(self.blocks, x, head_width=self.head_width)))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights but a frozen reader's from `generator` (on the weights' device).

        Matrices are normal with variance 1/fan-in, those that write to the stream a tenth of that deviation; σ² is
        e^NARROW everywhere, and the first loss log V within a few per cent.
        """
        own = [(name, p) for name, p in self.named_parameters() if not name.startswith("reader.backbone.")]
        for name, parameter in own:
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                scale = 0.1 if name.endswith("out.weight") else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[-1] ** -0.5, generator=generator)
        nn.init.normal_(self.head.weight, std=0.02, generator=generator)
        if isinstance(self.reader, OwnReader):
            nn.init.normal_(self.reader.embedding.weight, std=0.2, generator=generator)
        self.narrow.weight[self.latent_width :] = 0.0
        self.narrow.bias[self.latent_width :] = NARROW

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The reader's layers, then the decoder's."""
        yield from self.reader.repeated_layers()
        yield from self.blocks.repeated_layers()

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The weight matrices inside the layers: what Muon orthogonalises."""
        return (p for layer in self.repeated_layers() for p in layer.parameters() if p.ndim == 2)


def own_blocks(width: int, *, layers: int, heads: int, mlp_width: int, dropout: float) -> Stack:
    """Blocks of attention and a gated MLP that see no time."""
    inner: list[tuple[nn.Module, nn.Module]] = [
        (Attention(width, heads), GatedMLP(width, mlp_width)) for _ in range(layers)
    ]
    residual: Callable[[int, nn.Module], nn.Module] = partial(Residual, dropout=dropout)
    return straight(width, inner, residual=residual)


def through(blocks: Stack, x: Float[Tensor, "B R D"], *, head_width: int) -> Float[Tensor, "B R D"]:
    """A stream in which each place sees all, behind the last block."""
    rotation = rotary(x.shape[1], head_width, device=x.device)
    return blocks(x, x.new_zeros(len(x), 0), rotation=rotation, mask=None)
