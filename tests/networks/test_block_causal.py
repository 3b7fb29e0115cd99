"""Block-causal attention: one pass over the row twice is what sampling sees block by block."""

from functools import partial

import pytest
import torch

from remask.networks import BIDIRECTIONAL, CAUSAL, Direction, Transformer, block_causal
from remask.networks.blocks import Residual, Timeless
from remask.networks.stacks import straight
from remask.randomness import keyed_generator

V, MASK, LENGTH = 12, 11, 11
SEGMENTS = torch.tensor([[1] * LENGTH, [1] * 5 + [2] * 4 + [0] * 2])
each_block_length = pytest.mark.parametrize("block_length", [1, 3, 4, LENGTH])


def make(direction: Direction) -> Transformer:
    network = Transformer(
        vocab_size=V,
        mask_id=MASK,
        width=32,
        layers=2,
        heads=4,
        mlp_width=64,
        direction=direction,
        time=Timeless(),
        stack=partial(straight, residual=partial(Residual, dropout=0.0)),
    )
    network.initialise(keyed_generator(1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=keyed_generator(2)))
    return network.double().eval()


def rows(*, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """(noisy, clean), the noisy half masked."""
    generator = keyed_generator(seed)
    x = torch.randint(MASK, (2, LENGTH), generator=generator)
    return torch.where(torch.rand(2, LENGTH, generator=generator) < 0.5, MASK, x), x


def run(network, z, *, context=None, segments=SEGMENTS):
    """Logits everywhere [B L V]."""
    everywhere = torch.ones_like(z, dtype=torch.bool)
    with torch.no_grad():
        logits = network(
            z, torch.zeros(len(z)), segments=segments[:, : z.shape[1]], positions=everywhere, context=context
        )
    return logits.view(*z.shape, V)


@each_block_length
def test_one_pass_over_the_row_twice_sees_what_sampling_sees_block_by_block(block_length):
    network = make(block_causal(block_length))
    z, x = rows()
    doubled = run(network, z, context=x)
    for start in range(0, LENGTH, block_length):
        end = min(start + block_length, LENGTH)
        block = run(network, torch.cat([x[:, :start], z[:, start:end]], 1))[:, start:]
        torch.testing.assert_close(doubled[:, start:end], block, rtol=0, atol=1e-10)


def test_noisy_blocks_before_a_block_would_give_other_logits():
    network = make(block_causal(3))
    z, x = rows()
    assert not torch.allclose(run(network, z, context=x)[0, 3:], run(network, z)[0, 3:], atol=1e-3)
    torch.testing.assert_close(run(network, z, context=x)[:, :3], run(network, z)[:, :3], rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", range(4))
def test_a_clean_block_reaches_later_noisy_blocks_alone(block):
    network = make(block_causal(3))
    z, x = rows()
    changed = x.clone()
    changed[:, 3 * block : 3 * block + 3] = (changed[:, 3 * block : 3 * block + 3] + 5) % MASK
    base, other = run(network, z, context=x), run(network, z, context=changed)
    assert torch.equal(other[:, : 3 * block + 3], base[:, : 3 * block + 3])
    later = (other[0, 3 * block + 3 :] - base[0, 3 * block + 3 :]).abs().amax(-1)
    assert bool((later > 1e-3).all())


@pytest.mark.parametrize("block", range(4))
def test_a_noisy_block_reaches_itself_alone(block):
    network = make(block_causal(3))
    z, x = rows()
    inside = torch.arange(LENGTH) // 3 == block
    changed = torch.where(inside, (z + 5) % V, z)
    base, other = run(network, z, context=x), run(network, changed, context=x)
    assert torch.equal(other[:, ~inside], base[:, ~inside])
    assert not torch.allclose(other[0, inside], base[0, inside], atol=1e-3)


def test_no_document_sees_another_in_either_half():
    network = make(block_causal(4))
    z, x = rows()
    base = run(network, z, context=x)
    for document in (0, 1, 2):
        inside = SEGMENTS[1] == document
        other = run(network, torch.where(inside, (z + 5) % V, z), context=torch.where(inside, (x + 5) % MASK, x))
        assert torch.equal(other[1, ~inside], base[1, ~inside])
        assert not torch.allclose(other[1, inside], base[1, inside], atol=1e-3)


def test_a_block_as_long_as_the_row_is_bidirectional():
    z, x = rows()
    one = make(BIDIRECTIONAL)
    whole = make(block_causal(LENGTH))
    whole.load_state_dict(one.state_dict())
    assert torch.equal(run(whole, z), run(one, z))
    torch.testing.assert_close(run(whole, z, context=x), run(one, z), rtol=0, atol=1e-10)


@pytest.mark.parametrize("direction", [BIDIRECTIONAL, CAUSAL])
def test_a_direction_without_blocks_refuses_a_clean_context(direction):
    z, x = rows()
    with pytest.raises(ValueError, match="no mask for one"):
        run(make(direction), z, context=x)


def test_a_block_holds_a_token():
    with pytest.raises(ValueError, match="block_length: 0"):
        block_causal(0)


@pytest.mark.parametrize("block_length", [1, 2, 4, 16])
def test_heads_begin_by_looking_where_their_block_lets_them(block_length):
    neighbours = block_causal(block_length).neighbours
    assert len(set(neighbours)) == 8
    assert all(place < block_length for place in neighbours)
    assert block_causal(1).neighbours == CAUSAL.neighbours
    assert block_causal(16).neighbours == BIDIRECTIONAL.neighbours


def test_the_context_takes_part_in_training():
    network = make(block_causal(3))
    z, x = rows()
    everywhere = torch.ones_like(z, dtype=torch.bool)
    logits = network(z, torch.zeros(2), segments=SEGMENTS, positions=everywhere, context=x)
    torch.nn.functional.cross_entropy(logits, x.flatten()).backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in network.parameters())
