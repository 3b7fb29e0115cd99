"""Reversible blocks: what they compute, that it is undone, and by how much they change volume."""

from functools import partial

import pytest
import torch
from reversible_networks import (
    HYBRID,
    MASK,
    WIDTH,
    V,
    affine,
    blocks_of,
    drawn,
    network,
    normal,
    stack,
    wrappers,
)
from torch.autograd.functional import jacobian

from remask.networks import BIDIRECTIONAL, CAUSAL, block_causal
from remask.networks.blocks import Attention, GatedMLP
from remask.networks.couplings import Additive, Affine
from remask.networks.experts import Experts
from remask.networks.inverted import widened
from remask.networks.normalisation import unit_rms
from remask.networks.reversible import ReversibleStack, mixed, reversible
from remask.networks.rotary import rotary
from remask.networks.stacks import standard

COUPLINGS = {"additive": Additive, "affine": affine()}
each_coupling = pytest.mark.parametrize("coupling", COUPLINGS)
each_condition = pytest.mark.parametrize("conditioned", [False, True], ids=["timeless", "told the time"])


def surroundings(length: int, *, rows: int = 2, width: int = WIDTH, dtype=torch.float64) -> dict:
    """What blocks read besides the stream and the condition: the last place of the second row is padding."""
    segments = torch.ones(rows, length, dtype=torch.int64)
    segments[-1, -1] = 0
    rotation = rotary(length, width // 2, device=segments.device).to(dtype)
    return {"rotation": rotation, "mask": BIDIRECTIONAL.mask(segments), "real": segments != 0}


def small_stack(kinds: str, *, conditioned: bool, coupling, width: int, seed: int = 0) -> ReversibleStack:
    """In evaluation mode and float64; no weight is zero."""
    inner = [(Attention(width, 2), GatedMLP(width, 2 * width)) for _ in kinds]
    made = stack(kinds, conditioned=conditioned, coupling=coupling, width=width)(width, inner)
    return drawn(made, by=0.3).double().eval()


# ── the definition ──────────────────────────────────────────────────────────────────────────────────────────────────


@each_condition
def test_a_block_adds_what_attention_reads_and_then_what_the_mlp_reads(conditioned):
    """By hand, from a copy of its branches."""
    block = small_stack("r", conditioned=conditioned, coupling=Additive, width=8)[0]
    shared = surroundings(3, width=8)
    x1, x2, condition = normal(2, 3, 8, seed=1), normal(2, 3, 8, seed=2), normal(2, 8, seed=3)
    attended = {name: shared[name] for name in ("rotation", "mask")}
    y1 = x1 + block.attention(x2, condition, **attended)
    y2 = x2 + block.mlp(y1, condition)
    found = block(x1, x2, condition, **shared)
    torch.testing.assert_close(found, (y1, y2), rtol=0, atol=0)


def test_an_affine_coupling_scales_its_stream_by_what_its_update_says():
    coupling = drawn(Affine(4, limit=0.5), by=1.0).double()
    x, update = normal(2, 3, 4, seed=1), normal(2, 3, 4, seed=2)
    scale = torch.exp(0.5 * torch.tanh(update @ coupling.log_scale.weight.T / 0.5))
    torch.testing.assert_close(coupling(x, update), x * scale + update, rtol=1e-14, atol=0)
    assert bool((coupling(x, 1e6 * update) - 1e6 * update).abs().le(1.001 * torch.e**0.5 * x.abs() + 1e-8).all())


def test_an_affine_stack_begins_as_an_additive_one():
    """Its scales are zero at the start, and all other weights are drawn alike."""
    z, everywhere = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
    logits = [
        network(coupling=coupling, stir=0.0).eval()(z, torch.zeros(2), segments=everywhere.long(), positions=everywhere)
        for coupling in COUPLINGS.values()
    ]
    names = {name for name, p in network(coupling=affine(), stir=0.0).named_parameters() if not p.any()}
    assert len(names) == 6
    assert all("coupling.log_scale" in name for name in names)
    assert torch.equal(*logits)


def test_both_streams_begin_as_what_comes_in_and_their_mean_goes_on():
    """Of a hybrid stack: a stretch of two blocks, a standard block, a stretch of one."""
    made = small_stack(HYBRID, conditioned=False, coupling=Additive, width=8)
    shared, x, condition = surroundings(3, width=8), normal(2, 3, 8), normal(2, 0)
    y1, y2 = made[1](*made[0](x, x, condition, **shared), condition, **shared)
    middle = made[2]((y1 + y2) / 2, condition, **shared)
    y1, y2 = made[3](middle, middle, condition, **shared)
    torch.testing.assert_close(made(x, condition, **shared), (y1 + y2) / 2, rtol=1e-14, atol=1e-14)
    assert [len(stretch.blocks) for stretch in made.stretches] == [2, 1]


def test_a_stack_of_standard_blocks_is_the_straight_one():
    one, other = network("sss"), network(None, layers=3)
    z, everywhere = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
    run = partial(dict, segments=everywhere.long(), positions=everywhere)
    assert torch.equal(one(z, torch.zeros(2), **run()), other(z, torch.zeros(2), **run()))


# ── names and numbers of weights ────────────────────────────────────────────────────────────────────────────────────

SAVED = [
    "embedding.weight",
    *(
        f"blocks.{i}.{part}.weight"
        for i in range(2)
        for part in ("attention.inner.qkv", "attention.inner.out", "mlp.inner.gate_up", "mlp.inner.out")
    ),
    "head.weight",
]
MODULATED = [
    f"blocks.{i}.{part}.modulation.{kind}"
    for i in range(2)
    for part in ("attention", "mlp")
    for kind in ("weight", "bias")
]


@pytest.mark.parametrize("kinds", [None, "ss", "rr", "rs"])
def test_weights_have_the_names_that_saved_models_have(kinds):
    """Of a standard transformer before stacks could be of several kinds, and of every stack since."""
    assert [*network(kinds, layers=2).state_dict()] == SAVED
    told = {*network(kinds, layers=2, conditioned=True).state_dict()}
    assert told >= {*SAVED, *MODULATED}


def test_a_reversible_network_has_the_weights_of_the_standard_one():
    """Name by name and shape by shape, so that either takes the other's; and they compute different functions."""
    for options in ({}, {"conditioned": True}, {"tied": True}):
        plain, twin = network(None, layers=4, **options), network(HYBRID, **options)
        shapes = [[(name, p.shape) for name, p in one.named_parameters()] for one in (plain, twin)]
        assert shapes[0] == shapes[1]
        twin.load_state_dict(plain.state_dict())
    z, everywhere = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
    logits = [one(z, torch.zeros(2), segments=everywhere.long(), positions=everywhere) for one in (plain, twin)]
    assert not torch.allclose(*logits, atol=1e-3)


def test_a_reversible_network_begins_with_the_weights_of_the_standard_one():
    """Drawn from the same seed: what differs between two arms of a comparison is the blocks."""
    plain, twin = network(None, layers=3, stir=0.0), network("rrr", stir=0.0)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), twin.parameters(), strict=True))


def test_affine_couplings_add_one_matrix_a_branch():
    plain, twin = network(None, layers=2), network("rr", coupling=affine())
    extra = {name for name, _ in twin.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert extra == {f"blocks.{i}.{part}_coupling.log_scale.weight" for i in (0, 1) for part in ("attention", "mlp")}
    count = [sum(p.numel() for p in one.parameters()) for one in (plain, twin)]
    assert count[1] - count[0] == 4 * WIDTH**2


def test_repeated_layers_are_the_branches_of_reversible_blocks_and_standard_blocks_whole():
    made = network(HYBRID)
    found = [next(name for name, part in made.named_modules() if part is layer) for layer in made.repeated_layers()]
    pairs = [f"blocks.{i}.{part}" for i in (0, 1) for part in ("attention", "mlp")]
    assert found == [*pairs, "blocks.2", "blocks.3.attention", "blocks.3.mlp"]


# ── the inverse ─────────────────────────────────────────────────────────────────────────────────────────────────────


@each_condition
@each_coupling
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_a_block_and_a_stack_are_undone(coupling, conditioned, dtype, within):
    """No weight is zero. In float32 the streams themselves are float32, which training does not do."""
    made = small_stack("rrrr", conditioned=conditioned, coupling=COUPLINGS[coupling], width=WIDTH).to(dtype)
    shared = surroundings(6, dtype=dtype)
    x1, x2, condition = (normal(2, 6, WIDTH, seed=seed).to(dtype) for seed in (1, 2, 3))
    condition = condition[:, 0]
    with torch.no_grad():
        y1, y2 = made[0](x1, x2, condition, **shared)
        assert float((y1 - x1).abs().min(-1).values.max()) > 1e-3
        torch.testing.assert_close(made[0].inverse(y1, y2, condition, **shared), (x1, x2), rtol=0, atol=within)
        for block in [*made][1:]:
            y1, y2 = block(y1, y2, condition, **shared)
        torch.testing.assert_close(made.inverse(y1, y2, condition, **shared), (x1, x2), rtol=0, atol=within)


def test_streams_are_undone_without_the_last_bit_changed_from_a_network_in_float32():
    """The stretch carries them in float64: additive blocks that read them in float32 are undone to rounding of that."""
    made = network("r" * 8, stir=0.3).eval()
    shared, condition = surroundings(6, dtype=torch.float32), torch.zeros(2, 0)
    x = widened(normal(2, 6, WIDTH).float())
    with torch.no_grad():
        streams = x, x
        for block in made.blocks:
            streams = block(*streams, condition, **shared)
        back = blocks_of(made).inverse(*streams, condition, **shared)
    assert max(float((one - x).abs().max()) for one in back) < 1e-12


def test_each_stretch_of_a_hybrid_stack_is_undone_and_the_stack_refuses():
    made = small_stack(HYBRID, conditioned=False, coupling=affine(), width=8)
    shared, condition = surroundings(3, width=8), normal(2, 0)
    for stretch in made.stretches:
        x1, x2 = normal(2, 3, 8, seed=1), normal(2, 3, 8, seed=2)
        y1, y2 = x1, x2
        for block in stretch.blocks:
            y1, y2 = block(y1, y2, condition, **shared)
        torch.testing.assert_close(stretch.inverse((y1, y2), condition, **shared), (x1, x2), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="ReversibleBlock, ReversibleBlock, Block, ReversibleBlock has no inverse"):
        made.inverse(y1, y2, condition, **shared)


def test_a_wrong_condition_undoes_nothing():
    made = small_stack("rr", conditioned=True, coupling=Additive, width=8)
    shared, x, condition = surroundings(3, width=8), normal(2, 3, 8), normal(2, 8)
    y1, y2 = made[1](*made[0](x, x, condition, **shared), condition, **shared)
    back = made.inverse(y1, y2, condition + 0.1, **shared)
    assert not torch.allclose(back[0], x, atol=1e-3)


# ── log-determinants ────────────────────────────────────────────────────────────────────────────────────────────────


def slogdets(map_of_streams, streams: torch.Tensor) -> torch.Tensor:
    """log|det| of the autograd Jacobian of each row [B] of a map of streams [2 B L D]."""
    whole = jacobian(map_of_streams, streams)  # [2 B L D, 2 B L D]
    rows = streams.shape[1]
    size = streams[:, 0].numel()
    found = [torch.linalg.slogdet(whole[:, b, :, :, :, b].reshape(size, size)).logabsdet for b in range(rows)]
    apart = [whole[:, a, :, :, :, b].abs().max() for a in range(rows) for b in range(rows) if a != b]
    assert float(torch.stack(apart).max()) == 0.0
    return torch.stack(found)


@each_condition
@each_coupling
def test_log_determinants_are_those_of_the_jacobian_block_by_block_and_together(coupling, conditioned):
    """Two rows of two places of width 4, so that the Jacobian of a row is 16 × 16."""
    made = small_stack("rrr", conditioned=conditioned, coupling=COUPLINGS[coupling], width=4)
    drawn(made, by=0.7)
    shared, condition = surroundings(2, width=4), normal(2, 4)
    streams = normal(2, 2, 2, 4, seed=6)

    def all_blocks(both):
        for block in made:
            both = torch.stack(block(*both, condition, **shared))
        return both

    total, here = torch.zeros(2, dtype=torch.float64), streams
    for block in made:
        expected = slogdets(lambda both, block=block: torch.stack(block(*both, condition, **shared)), here)
        found = block.log_determinants(*here, condition, **shared).detach()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        assert (found == 0).all() if coupling == "additive" else found.abs().max() > 0.1
        total, here = total + found, torch.stack(block(*here, condition, **shared)).detach()
    torch.testing.assert_close(total, slogdets(all_blocks, streams), rtol=0, atol=1e-10)


def test_a_stack_gives_the_log_determinants_of_its_reversible_blocks():
    made = small_stack("rsr", conditioned=False, coupling=affine(), width=8)
    shared, x, condition = surroundings(3, width=8), normal(2, 3, 8), normal(2, 0)
    y1, y2 = made[0](x, x, condition, **shared)
    middle = made[1]((y1 + y2) / 2, condition, **shared)
    expected = [made[i].log_determinants(one, one, condition, **shared) for i, one in ((0, x), (2, middle))]
    torch.testing.assert_close(made.log_determinants(x, condition, **shared), torch.stack(expected))


@pytest.mark.parametrize(
    ("norm", "rank"),
    [
        (lambda x: x * x.square().mean(-1, keepdim=True).rsqrt(), 5),
        (lambda x: torch.nn.functional.layer_norm(x, (6,), eps=0.0), 4),
    ],
    ids=["RMSNorm", "LayerNorm"],
)
def test_a_norm_on_the_stream_would_have_no_inverse(norm, rank):
    """Its Jacobian is singular: a volume "log-determinant" through it is minus infinity, up to rounding."""
    x = normal(6)
    found = jacobian(norm, x)
    assert int(torch.linalg.matrix_rank(found, rtol=1e-10)) == rank
    assert float(torch.linalg.slogdet(found).logabsdet) < -25
    assert torch.allclose(norm(x), norm(3 * x))


def test_the_norm_in_use_is_as_singular_but_for_its_epsilon():
    found = torch.linalg.svdvals(jacobian(unit_rms, normal(6)))
    assert float(found[-1]) < 1e-5 * float(found[0])
    assert float(found[-2]) > 0.1 * float(found[0])


# ── the whole network ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kinds", ["rrr", HYBRID])
@pytest.mark.parametrize("direction", [CAUSAL, block_causal(3)], ids=["causal", "blocks of 3"])
def test_reading_on_with_a_cache_gives_the_logits_of_the_whole_row(kinds, direction):
    made = network(kinds, direction=direction, coupling=affine(), stir=0.3).double().eval()
    z = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(3))
    everywhere, t = torch.ones_like(z, dtype=torch.bool), torch.zeros(2)
    with torch.no_grad():
        whole = made(z, t, segments=everywhere.long(), positions=everywhere).view(2, 9, V)
        cache = made.open_cache(9)
        for known, end in ((3, 3), (6, 6), (9, 9)):
            new = torch.zeros(2, end, dtype=torch.bool)
            new[:, cache.length :] = True
            start = cache.length
            parts = made.resume(
                z[:, :end], t, segments=new.new_ones(2, end).long(), positions=new, cache=cache, known=known
            )
            torch.testing.assert_close(parts.view(2, end - start, V), whole[:, start:end], rtol=0, atol=1e-10)
        assert cache.length > 0


@pytest.mark.parametrize("kinds", ["rr", "rs"])
def test_one_pass_over_the_row_twice_sees_what_sampling_sees_block_by_block(kinds):
    made = network(kinds, direction=block_causal(3), stir=0.3).double().eval()
    generator = torch.Generator().manual_seed(3)
    clean = torch.randint(MASK, (2, 9), generator=generator)
    z = torch.where(torch.rand(2, 9, generator=generator) < 0.5, MASK, clean)

    def run(z, **context):
        everywhere = torch.ones_like(z, dtype=torch.bool)
        logits = made(z, torch.zeros(2), segments=everywhere.long(), positions=everywhere, **context)
        return logits.view(*z.shape, V).detach()

    doubled = run(z, context=clean)
    for start in (0, 3, 6):
        block = run(torch.cat([clean[:, :start], z[:, start : start + 3]], 1))[:, start:]
        torch.testing.assert_close(doubled[:, start : start + 3], block, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kinds", ["rrr", HYBRID])
def test_no_document_sees_another_one_in_its_row(kinds):
    made = network(kinds, stir=0.3).eval()
    segments = torch.tensor([[1] * 4 + [2] * 3 + [0] * 2])
    z, everywhere = torch.arange(9)[None] % MASK, torch.ones(1, 9, dtype=torch.bool)
    base = made(z, torch.zeros(1), segments=segments, positions=everywhere)
    for document in range(3):
        inside = segments[0] == document
        other = made(torch.where(inside, (z + 5) % MASK, z), torch.zeros(1), segments=segments, positions=everywhere)
        assert torch.equal(other[~inside], base[~inside])
        assert not torch.allclose(other[inside], base[inside], atol=1e-3)


def test_weights_in_half_precision_are_read_in_it():
    made = network(HYBRID, stir=0.0).eval()
    z, everywhere = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
    with torch.no_grad():
        wide, half = (
            one(z, torch.zeros(2), segments=everywhere.long(), positions=everywhere)
            for one in (made, network(HYBRID, stir=0.0).eval().bfloat16())
        )
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wide, rtol=0, atol=0.05)


def test_blocks_of_experts_are_undone_too():
    made = network("rrr", mlp=partial(Experts, experts=4, per_token=2, balance_rate=0.01)).double().eval()
    shared, condition, x = surroundings(6), torch.zeros(2, 0), normal(2, 6, WIDTH)
    with torch.no_grad():
        streams = x, x
        for block in made.blocks:
            streams = block(*streams, condition, **shared)
        back = blocks_of(made).inverse(*streams, condition, **shared)
    torch.testing.assert_close(back, (x, x), rtol=0, atol=1e-10)


def test_makers_and_blocks_must_be_as_many():
    residual, branch = wrappers(conditioned=False, dropout=0.0)
    inner = [(Attention(8, 2), GatedMLP(8, 16))] * 2
    makes = [partial(standard, residual=residual), partial(reversible, branch=branch)]
    assert len(mixed(8, inner, makes=makes)) == 2
    with pytest.raises(ValueError, match="zip"):
        mixed(8, inner, makes=makes[:1])
