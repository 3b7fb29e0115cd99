"""Where latents look: places in a text, turned into rotary angles.

S latents that read a text are spread over it, the first at its last token and the last at its first, and each begins
by reading its own stretch of it. Counting from the end puts the latents that nested dropout keeps longest nearest to
what follows the text.

Half of a head's rotary pairs see distances in stretches, (S − 1)/(n − 1) a token for a text of n tokens, so that where
a latent begins to look does not depend on n; the other half see them in tokens. A single latent stands everywhere at
once: in stretches all its distances are 0, and it begins as the mean.

Shape letters: B rows, L tokens a row, K texts a row, S latents a text, F rotary pairs of a head.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

TOP_FREQUENCY = 2.0
"""The highest rotary frequency, in radians a stretch or a token."""
STRETCH_BASE, TOKEN_BASE = 100.0, 10_000.0
"""The lowest frequencies are the highest over these."""


def coarse_pairs(pairs: int) -> int:
    """How many of a head's rotary pairs see distances in stretches: the first half."""
    return (pairs + 1) // 2


def frequencies(pairs: int, base: float, *, device: torch.device) -> Float[Tensor, "F"]:
    """Radians a unit of distance of each pair, falling from the top by a factor of `base`."""
    return TOP_FREQUENCY * base ** (-torch.arange(pairs, device=device, dtype=torch.float32) / max(pairs, 1))


def turns(angles: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F 2"]:
    """Cosine and sine of angles."""
    return torch.stack([angles.cos(), angles.sin()], -1)


@dataclass(frozen=True)
class Texts:
    """The texts that stand in each row.

    Attributes:
        inside: which tokens belong to which text.
        offset: each token's place in its text, from 0; without meaning in padding.
        extent: places from a text's first token to its last; 0 for a text that is not there.
    """

    inside: Bool[Tensor, "B K L"]
    offset: Int[Tensor, "B L"]
    extent: Int[Tensor, "B K"]


def texts(segments: Int[Tensor, "B L"], *, count: int) -> Texts:
    """The texts numbered 1 to `count` of each row."""
    length, device = segments.shape[1], segments.device
    inside = segments[:, None] == torch.arange(1, count + 1, device=device)[:, None]
    places = torch.arange(length, device=device)
    first = torch.where(inside, places, length).amin(-1)
    last = torch.where(inside, places, -1).amax(-1)
    own = (segments - 1).clamp(0, count - 1)
    offset = (places - first.gather(1, own)).clamp(min=0)
    return Texts(inside=inside, offset=offset, extent=(last - first).clamp(min=0))


def reading_turns(
    read: Texts, segments: Int[Tensor, "B L"], *, latents: int, pairs: int
) -> tuple[Float[Tensor, "B S_K F 2"], Float[Tensor, "B L F 2"]]:
    """The rotations of the latents of all texts, text by text, and of the tokens that they read.

    Args:
        read: the texts of `segments`.
        segments: the text of each token, from 1.
        latents: S.
        pairs: F.
    """
    coarse, device = coarse_pairs(pairs), segments.device
    slots = torch.arange(latents, device=device)
    stretch = (latents - 1) / read.extent.clamp(min=1)  # stretches a token, of each text
    own = (segments - 1).clamp(0, read.extent.shape[1] - 1)
    back = slots / max(latents - 1, 1)
    latent_places = read.extent[..., None] * (1.0 - back)
    latent_stretches = (latents - 1.0 - slots).expand(latent_places.shape)
    by_stretch = frequencies(coarse, STRETCH_BASE, device=device)
    by_token = frequencies(pairs - coarse, TOKEN_BASE, device=device)

    def together(stretches: Tensor, tokens: Tensor) -> Tensor:
        angles = [stretches.float()[..., None] * by_stretch, tokens.float()[..., None] * by_token]
        return turns(torch.cat(angles, -1))

    of_latents = together(latent_stretches, latent_places).flatten(1, 2)
    return of_latents, together(read.offset * stretch.gather(1, own), read.offset)


def distance_turns(places: Shaped[Tensor, "*N"], *, pairs: int) -> Float[Tensor, "*N F 2"]:
    """The rotations of places whose distances are seen in tokens by all pairs."""
    return turns(places.float()[..., None] * frequencies(pairs, TOKEN_BASE, device=places.device))


def sinusoids(places: Int[Tensor, "B L"], *, width: int) -> Float[Tensor, "B L W"]:
    """Sines and cosines of places at geometric frequencies (arXiv:1706.03762, section 3.5); W = `width`, made even."""
    rotation = distance_turns(places, pairs=(width + 1) // 2)
    return rotation.flatten(-2)[..., :width]
