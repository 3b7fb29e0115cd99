"""Where a slot stands: which place reads which stretch and from where it counts, and that slots have places at all.

Shape letters: L places, C concepts, D width.
"""

import pytest
import torch
from concept_networks import MASK, all_real, make, tokens

from remask.networks.concepts import Concepts
from remask.networks.concepts.decoders import Memory
from remask.networks.concepts.places import distance_turns, sinusoids
from remask.networks.concepts.stretches import StretchDecoder
from remask.networks.normalisation import unit_rms
from remask.randomness import keyed_generator

STRETCHES = {
    (7, 3): ([0, 0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 0, 1]),
    (10, 4): ([0, 0, 0, 1, 1, 2, 2, 2, 3, 3], [0, 1, 2, 0, 1, 0, 1, 2, 0, 1]),
    (5, 3): ([0, 0, 1, 1, 2], [0, 1, 0, 1, 0]),
    (6, 3): ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]),
    (3, 3): ([0, 1, 2], [0, 0, 0]),
    (2, 3): ([0, 1], [0, 0]),
}
"""(tokens, C) → the stretch of each place, and how many places of it come before."""


def random(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(shape, generator=keyed_generator(seed))


def by_definition(size: int, most: int) -> tuple[list[int], list[int]]:
    """c(n) = ⌊n·C/N⌋ where N > C, else n, and the place within c(n), counted one by one."""
    stretches = [n * most // size if size > most else n for n in range(size)]
    return stretches, [n - stretches.index(c) for n, c in enumerate(stretches)]


def decoded(decoder: StretchDecoder, vectors: torch.Tensor, *, before: int, size: int) -> torch.Tensor:
    """The states of all places of one text, with `before` places of padding in front of it and one behind."""
    segments = torch.tensor([[0] * before + [1] * size + [0]])
    length = segments.shape[1]
    real = torch.ones(vectors.shape[:2], dtype=torch.bool)
    read = torch.zeros(1, length, vectors.shape[-1])
    return decoder(read, torch.zeros(1), vectors, real, segments=segments, positions=segments > 0)


@pytest.mark.parametrize(("size", "most"), [*STRETCHES, (12, 5), (29, 8), (31, 7)])
def test_each_place_is_decoded_from_its_own_stretch_and_counts_from_where_that_begins(size, most) -> None:
    """By hand, behind an MLP that says what it reads, wherever the text stands in its row."""
    stretches, within = by_definition(size, most)
    assert STRETCHES.get((size, most), (stretches, within)) == (stretches, within)
    decoder = StretchDecoder(8, most, mlp=torch.nn.Identity())
    with torch.no_grad():
        decoder.place.weight.copy_(random(8, 8, seed=6))
    vectors = random(1, most, 8)
    x = unit_rms(vectors[0, stretches]) + decoder.place(sinusoids(torch.tensor([within]), width=8)[0])
    expected = unit_rms(x + unit_rms(x))
    for before in (0, 3):
        found = decoded(decoder, vectors, before=before, size=size)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "most"), STRETCHES)
def test_the_first_places_of_all_stretches_are_decoded_alike_where_concepts_are(size, most) -> None:
    """So are the second ones; a first and a second differ."""
    decoder = StretchDecoder(8, most, mlp=torch.nn.Identity())
    with torch.no_grad():
        decoder.place.weight.copy_(random(8, 8, seed=6))
    found = decoded(decoder, torch.ones(1, most, 8), before=0, size=size)
    _, within = STRETCHES[size, most]
    for n in range(size):
        for m in range(n):
            assert torch.allclose(found[n], found[m], atol=1e-5) is (within[n] == within[m])


@pytest.mark.parametrize("decoder", ["denoising", "perceiver", "position_only"])
@pytest.mark.parametrize("encoder", ["perceiver", "tokens"])
def test_two_slots_that_swap_their_vectors_change_what_is_written(encoder, decoder) -> None:
    """What a concept says is read together with where it stands, in the order of slots and in that of tokens."""
    network = make(stirred=True, encoder=encoder, decoder=decoder)
    z = torch.full((2, 6), MASK)
    vectors, real = random(2, 4, 16), torch.ones(2, 4, dtype=torch.bool)

    def logits(order: list[int]) -> torch.Tensor:
        told = Concepts(vectors=vectors[:, order], real=real)
        half = torch.full((2,), 0.5)
        return network.decode(z, half, told, segments=torch.ones_like(z), positions=all_real(z))

    base = logits([0, 1, 2, 3])
    for order in ([1, 0, 2, 3], [0, 1, 3, 2], [3, 1, 2, 0]):
        assert ((logits(order) - base).abs().amax(-1) > 1e-3).all()


def test_slots_count_backwards_from_a_text_and_tokens_stand_where_they_stood() -> None:
    """What says nothing stands at the text's first place; a token that is missing leaves its place empty."""
    vectors = random(2, 3, 8)
    real = torch.tensor([[True, True, True], [True, True, False]])
    for natural, places in (
        (False, [[0, 0, -1, -2, -3], [0, 0, -1, -2, -3]]),
        (True, [[0, 0, -3, -2, -1], [0, 0, -2, -1, 0]]),
    ):
        _, known, turn = Memory(8, natural=natural)(vectors, real, pairs=2)
        expected = distance_turns(torch.tensor(places), pairs=2)
        torch.testing.assert_close(turn[known], expected[known])


def test_the_order_of_source_tokens_is_told_apart_where_each_is_a_concept() -> None:
    """A text and the same text with two neighbours exchanged, through encoder and decoder."""
    network = make(stirred=True, encoder="tokens", decoder="position_only")
    source = torch.tensor([[0, 1, 2, 3, 4]])
    concepts = network.encode(source, real=all_real(source))
    z = tokens(1, 4)
    told = {"segments": torch.ones_like(z), "positions": all_real(z)}
    plain, swapped = (
        network.decode(z, torch.full((1,), 0.5), Concepts(vectors=each, real=concepts.real), **told)
        for each in (concepts.vectors, concepts.vectors[:, [0, 2, 1, 3, 4]])
    )
    assert not torch.allclose(plain, swapped, atol=1e-3)
