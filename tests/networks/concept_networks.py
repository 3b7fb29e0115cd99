"""Small concept networks as a recipe builds them, and a text for them to read."""

import torch

from remask.config.build.concepts import build_concept_network
from remask.config.schema import ConceptSpec
from remask.networks.concepts import ConceptNetwork
from remask.randomness import keyed_generator
from remask.tokenizers import CharacterTokenizer

V, MASK, LENGTH = 8, 7, 12
ENCODERS = {
    "perceiver": {"encoder": "perceiver"},
    "two_way": {"encoder": "two_way", "layers": 2},
    "recursive": {"encoder": "recursive", "layers": 3},
    "competing": {"encoder": "perceiver", "slots": "competing"},
    "two_way_competing": {"encoder": "two_way", "layers": 2, "slots": "competing"},
    "narrow": {"encoder": "perceiver", "latent_width": 6},
    "tokens": {"encoder": "tokens"},
    "stretches": {"encoder": "stretches"},
    "stretch_states": {"encoder": "stretch_states"},
    "mean": {"encoder": "mean"},
    "none": {"encoder": "none"},
}
DECODERS = ("denoising", "perceiver", "position_only", "weighted")


def make(*, stirred: bool = False, vocab_size: int = V, seed: int = 1, **network) -> ConceptNetwork:
    """A network of a recipe's `network` section; `stirred` moves every trained weight away from its start."""
    small = {"width": 16, "heads": 2, "layers": 1, "concepts": 3, "decoder_layers": 1, "scratch": 2}
    spec = ConceptSpec(**(small | {"local_width": 3, "decoder_local_width": 3} | network))
    letters = "".join(chr(0x4E00 + i) for i in range(vocab_size - 2))  # end of text and mask are the other two
    built = build_concept_network(spec, CharacterTokenizer(letters), length=LENGTH, seed=seed)
    if stirred:
        generator = keyed_generator(2)
        with torch.no_grad():
            for parameter in built.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return built.eval()


def tokens(batch: int, length: int, *, seed: int = 3, vocab_size: int = V) -> torch.Tensor:
    return torch.randint(vocab_size - 1, (batch, length), generator=keyed_generator(seed))


def all_real(ids: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(ids, dtype=torch.bool)


def run(network, z, *, t=0.5, segments=None, positions=None, **source):
    segments = torch.ones_like(z) if segments is None else segments
    positions = all_real(z) if positions is None else positions
    times = torch.full((len(z),), t, dtype=torch.float64)
    return network(z, times, segments=segments, positions=positions, **source)


def others(ids: torch.Tensor, *, vocab_size: int = V) -> torch.Tensor:
    """Another token, never the mask, at every place."""
    return (ids + 3) % (vocab_size - 1)
