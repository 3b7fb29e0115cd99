"""The transformer: who sees whom, where it starts, and that all of it learns."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.networks import BIDIRECTIONAL, CAUSAL, Transformer
from remask.networks.blocks import (
    Attention,
    Final,
    ModulatedFinal,
    ModulatedResidual,
    Residual,
    TimeEmbedding,
    Timeless,
    bounded,
    unbounded,
)
from remask.networks.normalisation import unit_rms
from remask.networks.rotary import rotary, rotate
from remask.networks.stacks import straight
from remask.randomness import keyed_generator

V, MASK = 50, 49
DIRECTIONS = {"bidirectional": BIDIRECTIONAL, "causal": CAUSAL}
BOUNDS = {"adaln_zero": unbounded, "adaln_bounded": bounded}
VARIANTS = [(d, time, head) for d in DIRECTIONS for time in ("none", *BOUNDS) for head in ("tied", "untied")]
each_variant = pytest.mark.parametrize(("direction", "time", "head"), VARIANTS)
each_direction = pytest.mark.parametrize("direction", DIRECTIONS)


def make(
    direction="bidirectional",
    time="none",
    head="untied",
    *,
    vocab_size=V,
    width=32,
    layers=2,
    dropout=0.0,
    stirred=False,
) -> Transformer:
    """A network as config/build.py makes it; `stirred` moves every weight away from its start."""
    conditioned = time in BOUNDS
    modulated = {"condition_width": width, "bound": BOUNDS.get(time)}
    residual = partial(ModulatedResidual, **modulated) if conditioned else Residual
    network = Transformer(
        vocab_size=vocab_size,
        mask_id=vocab_size - 1,
        width=width,
        layers=layers,
        heads=4,
        mlp_width=2 * width,
        direction=DIRECTIONS[direction],
        time=TimeEmbedding(width) if conditioned else Timeless(),
        stack=partial(straight, residual=partial(residual, dropout=dropout)),
        final=partial(ModulatedFinal, **modulated) if conditioned else Final,
    )
    if head == "tied":
        network.tie_head()
    network.initialise(keyed_generator(1))
    if stirred:
        generator = keyed_generator(2)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def tokens(batch: int, length: int, *, seed: int = 3, vocab_size: int = V) -> torch.Tensor:
    return torch.randint(vocab_size - 1, (batch, length), generator=keyed_generator(seed))


def run(network, z, *, t=0.5, segments=None, positions=None):
    segments = torch.ones_like(z) if segments is None else segments
    positions = torch.ones_like(z, dtype=torch.bool) if positions is None else positions
    times = torch.full((len(z),), t, dtype=torch.float64)
    return network(z, times, segments=segments, positions=positions)


@each_variant
def test_no_document_sees_another_one_in_its_row(direction, time, head):
    """Exactly: replacing one document, padding included, leaves every bit of the others' logits."""
    network = make(direction, time, head, stirred=True)
    segments = torch.tensor([[1] * 5 + [2] * 4 + [3] * 4 + [0] * 3])
    z = tokens(1, 16)
    base = run(network, z, segments=segments)
    for document in range(4):
        inside = segments[0] == document
        changed = torch.where(inside, tokens(1, 16, seed=9), z)
        logits = run(network, changed, segments=segments)
        assert torch.equal(logits[~inside], base[~inside])
        if document:
            assert not torch.allclose(logits[inside], base[inside])


@each_variant
def test_padding_changes_no_logits(direction, time, head):
    network = make(direction, time, head, stirred=True)
    z = tokens(2, 6)
    wide = torch.cat([z, tokens(2, 5, seed=8)], 1)
    segments = torch.tensor([[1] * 6 + [0] * 5] * 2)
    there = segments > 0
    torch.testing.assert_close(
        run(network, wide, segments=segments, positions=there), run(network, z), rtol=1e-4, atol=1e-4
    )


@each_variant
def test_a_document_gets_the_logits_it_gets_alone(direction, time, head):
    """Wherever it stands in the row: attention stays inside, and rotary positions are relative."""
    network = make(direction, time, head, stirred=True)
    z = tokens(1, 12)
    segments = torch.tensor([[1] * 4 + [2] * 8])
    packed = run(network, z, segments=segments)
    torch.testing.assert_close(packed[:4], run(network, z[:, :4]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(packed[4:], run(network, z[:, 4:]), rtol=1e-3, atol=1e-3)


@each_variant
@settings(max_examples=3)
@given(seed=st.integers(0, 999))
def test_projecting_wanted_positions_alone_gives_their_logits(direction, time, head, seed):
    network = make(direction, time, head, stirred=True)
    z = tokens(3, 7)
    wanted = torch.rand(3, 7, generator=keyed_generator(seed)) < 0.4
    torch.testing.assert_close(
        run(network, z, positions=wanted), run(network, z)[wanted.flatten()], rtol=1e-5, atol=1e-5
    )


def test_no_wanted_position_gives_no_logits():
    z = tokens(2, 5)
    assert run(make(), z, positions=torch.zeros_like(z, dtype=torch.bool)).shape == (0, V)


def test_causal_logits_depend_on_the_tokens_before_and_on_nothing_else():
    """Exactly, for every position i: tokens i and later may be anything; each earlier one matters."""
    network = make("causal", stirred=True)
    z = tokens(1, 8)
    base = run(network, z)
    for i in range(8):
        later = z.clone()
        later[:, i:] = (later[:, i:] + 7) % (V - 1)
        assert torch.equal(run(network, later)[: i + 1], base[: i + 1])
        for j in range(i):
            earlier = z.clone()
            earlier[:, j] = (earlier[:, j] + 7) % (V - 1)
            assert not torch.allclose(run(network, earlier)[i], base[i])


def test_the_first_token_of_a_later_document_is_predicted_without_the_one_before():
    network = make("causal", stirred=True)
    segments = torch.tensor([[1, 1, 1, 2, 2]])
    one, other = tokens(1, 5), tokens(1, 5, seed=5)
    torch.testing.assert_close(
        run(network, one, segments=segments)[3], run(network, other, segments=segments)[3], rtol=0, atol=0
    )
    torch.testing.assert_close(run(network, one, segments=segments)[3], run(network, other)[0], rtol=1e-4, atol=1e-4)


def test_bidirectional_logits_depend_on_every_token():
    network = make(stirred=True)
    z = tokens(1, 6)
    base = run(network, z)
    for j in range(6):
        changed = z.clone()
        changed[:, j] = (changed[:, j] + 7) % (V - 1)
        assert not any(torch.allclose(one, other) for one, other in zip(run(network, changed), base, strict=True))


def test_the_order_of_tokens_matters():
    network = make(stirred=True)
    z = tokens(1, 6)
    swapped = z[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(run(network, swapped)[5], run(network, z)[5], atol=1e-3)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 40))
def test_rotary_products_see_distances_only(i, j, shift):
    rotation = rotary(64, 8, device=torch.device("cpu"))
    generator = keyed_generator(4)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator, dtype=torch.float64).unbind(0)

    def product(a: int, b: int) -> float:
        turned = [rotate(x, rotation[p : p + 1]) for x, p in ((q, a), (k, b))]
        return float((turned[0] * turned[1]).sum())

    assert product(i, j) == pytest.approx(product(i + shift, j + shift), abs=2e-5)


def test_rotation_keeps_lengths_and_tells_distances_apart():
    x = torch.randn(1, 64, 1, 8, generator=keyed_generator(4))
    turned = rotate(x, rotary(64, 8, device=torch.device("cpu")))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    same = rotate(x[:, :1].expand_as(x).contiguous(), rotary(64, 8, device=torch.device("cpu")))
    products = (same[0, 0, 0] * same[0, :, 0]).sum(-1)
    assert len(products.round(decimals=4).unique()) > 60


@each_variant
@pytest.mark.parametrize("width", [32, 256, 512])
def test_the_first_loss_is_log_v_within_ten_per_cent(direction, time, head, width):
    """On random text whose tokens are visible: a tied head must not begin by repeating its input."""
    size = 300
    network = make(direction, time, head, vocab_size=size, width=width)
    z, target = tokens(2, 64, vocab_size=size), tokens(2, 64, seed=4, vocab_size=size)
    with torch.no_grad():
        for shown in (z, torch.full_like(z, size - 1)):
            logits = run(network, shown)
            logits[:, -1] = -torch.inf
            loss = float(torch.nn.functional.cross_entropy(logits, target.flatten()))
            assert loss == pytest.approx(math.log(size - 1), rel=0.1)


@each_variant
def test_every_weight_is_trained(direction, time, head):
    """In the first step; behind AdaLN-Zero's closed gates the inner weights move in the second, the rest in the third.

    (Step 1 opens the gates, step 2 moves what lies behind them and the way from time to the modulation.)
    """
    network = make(direction, time, head).train()
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    moved_at = {}
    for step in (1, 2, 3):
        logits = run(network, tokens(8, 12), t=0.1 * step)
        torch.nn.functional.cross_entropy(logits, tokens(8, 12, seed=4).flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        for name, parameter in network.named_parameters():
            if name not in moved_at and not torch.equal(parameter, start[name]):
                moved_at[name] = step
    assert moved_at.keys() == start.keys()
    if time == "none":
        assert set(moved_at.values()) == {1}
    else:
        assert all(step == 1 for name, step in moved_at.items() if "modulation" in name)
        assert max(moved_at.values()) == 2


@pytest.mark.parametrize("time", BOUNDS)
def test_adaln_blocks_are_the_identity_at_the_start(time):
    network = make(time=time)
    x = torch.randn(2, 5, 32, generator=keyed_generator(5))
    rotation = rotary(5, 8, device=x.device)
    mask = BIDIRECTIONAL.mask(torch.ones(2, 5, dtype=torch.int64))
    condition = network.time(torch.tensor([0.1, 0.9], dtype=torch.float64))
    for block in network.blocks:
        assert torch.equal(block(x, condition, rotation=rotation, mask=mask), x)
    plain = make()
    assert not torch.allclose(plain.blocks[0](x, condition, rotation=rotation, mask=mask), x)


def test_a_tied_head_shares_the_embedding():
    tied, untied = make(head="tied"), make()
    assert tied.head.weight is tied.embedding.weight
    count = {
        name: sum(p.numel() for p in network.parameters()) for name, network in (("tied", tied), ("untied", untied))
    }
    assert count["untied"] - count["tied"] == V * 32
    run(tied, tokens(1, 4)).sum().backward()
    assert tied.embedding.weight.grad is tied.head.weight.grad


@each_direction
def test_time_matters_once_the_gates_have_opened_and_only_to_a_network_that_is_told(direction):
    z = tokens(1, 6)
    conditioned = make(direction, "adaln_zero", stirred=True)
    assert not torch.allclose(run(conditioned, z, t=0.2), run(conditioned, z, t=0.8), atol=1e-3)
    assert not torch.allclose(run(conditioned, z, t=0.200), run(conditioned, z, t=0.205), atol=1e-4)
    timeless = make(direction, stirred=True)
    assert torch.equal(run(timeless, z, t=0.2), run(timeless, z, t=0.8))


def test_each_row_has_its_own_time():
    network = make(time="adaln_zero", stirred=True)
    z = tokens(2, 6)
    everywhere = torch.ones_like(z, dtype=torch.bool)
    times = torch.tensor([0.2, 0.8], dtype=torch.float64)
    both = network(z, times, segments=torch.ones_like(z), positions=everywhere)
    torch.testing.assert_close(both[:6], run(network, z[:1], t=0.2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[6:], run(network, z[1:], t=0.8), rtol=1e-4, atol=1e-4)


def test_evaluation_is_deterministic_and_training_drops_units():
    network = make(dropout=0.5, stirred=True)
    z = tokens(2, 6)
    assert torch.equal(run(network, z), run(network, z))
    network.train()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert not torch.equal(run(network, z), run(network, z))


@each_variant
def test_weights_are_a_function_of_the_seed(direction, time, head):
    one, again = make(direction, time, head), make(direction, time, head)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    again.initialise(keyed_generator(2))
    assert not torch.equal(one.embedding.weight, again.embedding.weight)


def test_muon_gets_the_matrices_inside_the_blocks_and_nothing_else():
    network = make(head="tied")
    chosen = {id(p) for p in network.hidden_matrices()}
    names = {name for name, p in network.named_parameters() if id(p) in chosen}
    assert names == {
        f"blocks.{i}.{inner}.weight"
        for i in range(2)
        for inner in ("attention.inner.qkv", "attention.inner.out", "mlp.inner.gate_up", "mlp.inner.out")
    }


def test_attention_averages_values_over_what_the_mask_allows():
    """Zero queries weigh all allowed keys alike: the output is the mean of their values, by hand."""
    attention = Attention(8, 2)
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.weight[16:] = torch.eye(8)
        attention.out.weight.copy_(torch.eye(8))
    x = torch.randn(1, 4, 8, generator=keyed_generator(6))
    segments = torch.tensor([[1, 1, 2, 2]])
    mixed = attention(x, rotation=rotary(4, 4, device=x.device), mask=CAUSAL.mask(segments))
    expected = torch.stack([x[0, 0], x[0, :2].mean(0), x[0, 2], x[0, 2:].mean(0)])
    torch.testing.assert_close(mixed[0], expected, rtol=1e-5, atol=1e-6)


@each_direction
def test_heads_of_the_first_blocks_begin_by_looking_at_a_neighbour_each(direction):
    length, width = 24, 64
    network = make(direction, width=width)
    for block, neighbours in zip(
        network.blocks, (DIRECTIONS[direction].neighbours[:4], DIRECTIONS[direction].neighbours[4:]), strict=True
    ):
        attention = block.attention.inner
        heads = attention.heads
        with torch.no_grad():
            x = unit_rms(network.embedding(tokens(1, length)))
            qk = attention.qkv(x).view(1, length, 3 * heads, -1)[:, :, : 2 * heads]
            q, k = rotate(unit_rms(qk), rotary(length, width // heads, device=x.device)).transpose(1, 2).chunk(2, 1)
        seen = (q @ k.mT)[0].argmax(-1)[:, 8:-4]
        expected = torch.arange(8, length - 4) + torch.tensor(neighbours)[:, None]
        assert float((seen == expected).double().mean()) > 0.9


def test_bounded_modulation_is_the_plain_one_near_zero_and_never_grows_beyond_one():
    """As blocks and the final layer use it: however large the modulation, what they add to the stream is limited."""
    small, large = torch.linspace(-1e-3, 1e-3, 9), torch.tensor([-1e6, 1e6])
    torch.testing.assert_close(bounded(small), small, rtol=1e-5, atol=0)
    assert bounded(large).tolist() == [-1.0, 1.0]
    assert unbounded(large).tolist() == large.tolist()
    x, condition = torch.randn(5, 32, generator=keyed_generator(5)), torch.ones(5, 32)
    sizes = {}
    for time in BOUNDS:
        final = make(time=time).norm
        torch.nn.init.constant_(final.modulation.weight, 100.0)
        sizes[time] = float(final(x, condition).detach().abs().max())
    assert sizes["adaln_bounded"] <= 2 * float(unit_rms(x).abs().max()) + 1
    assert sizes["adaln_zero"] > 100 * sizes["adaln_bounded"]
