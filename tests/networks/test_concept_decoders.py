"""Concepts and noisy tokens to logits: what a place sees, what it must not, and where all of it begins."""

import math

import pytest
import torch
from concept_networks import DECODERS, ENCODERS, LENGTH, MASK, V, all_real, make, others, run, tokens
from torch.nn import functional

from remask.networks.blocks import ModulatedBranch
from remask.networks.concepts import Concepts
from remask.networks.concepts.layers import LocalConvolution
from remask.randomness import keyed_generator

each_decoder = pytest.mark.parametrize("decoder", DECODERS)
PAIRS = [
    *((encoder, "denoising") for encoder in ENCODERS),
    *(("perceiver", decoder) for decoder in DECODERS if decoder != "denoising"),
    ("mean", "weighted"),
    ("none", "perceiver"),
]
each_pair = pytest.mark.parametrize(("encoder", "decoder"), PAIRS)


def masked(z: torch.Tensor, *places: int) -> torch.Tensor:
    return torch.where(torch.isin(torch.arange(z.shape[1]), torch.tensor(places)), MASK, z)


# ── what a place sees ───────────────────────────────────────────────────────────────────────────────────────────────


@each_decoder
def test_masked_places_see_the_visible_tokens_of_the_denoising_decoder_alone(decoder):
    """Every visible token, near or far, moves the logits of a masked place, or none does."""
    network = make(stirred=True, decoder=decoder)
    z, source = masked(tokens(1, LENGTH), 5, 6), tokens(1, 7)
    here = torch.zeros_like(z, dtype=torch.bool)
    here[:, 5] = True
    base = run(network, z, positions=here, source=source)
    for place in (4, 0, LENGTH - 1):
        changed = z.clone()
        changed[:, place] = others(z)[:, place]
        logits = run(network, changed, positions=here, source=source)
        assert torch.equal(logits, base) is (decoder != "denoising")


@pytest.mark.parametrize(("decoder", "reads"), list(zip(DECODERS, (True, True, False, False), strict=True)))
def test_a_place_asks_with_its_own_noisy_token_or_with_its_place_alone(decoder, reads):
    network = make(stirred=True, decoder=decoder)
    z, source = tokens(1, 6), tokens(1, 7)
    same = torch.allclose(run(network, z, source=source), run(network, others(z), source=source), atol=1e-5)
    assert same is not reads


@each_decoder
def test_a_decoder_knows_its_places(decoder):
    network = make(stirred=True, decoder=decoder)
    logits = run(network, torch.full((1, 6), MASK), source=tokens(1, 7))
    assert not torch.allclose(logits[0], logits[3], atol=1e-3)


@each_pair
def test_the_source_matters_to_all_but_the_network_without_concepts(encoder, decoder):
    network = make(stirred=True, decoder=decoder, **ENCODERS[encoder])
    z, source = masked(tokens(2, 6), 1, 4), tokens(2, 7)
    base, moved = (run(network, z, source=ids) for ids in (source, others(source)))
    assert torch.allclose(base, moved, atol=1e-4) is (encoder == "none")


@pytest.mark.parametrize("encoder", ["tokens", "perceiver", "mean"])
def test_places_before_and_behind_the_source_that_are_not_there_change_nothing(encoder):
    """Where every source token is a concept, its place is counted from the last one there."""
    network = make(stirred=True, encoder=encoder)
    z, source, real = torch.full((1, 6), MASK), tokens(1, 7), all_real(tokens(1, 7))
    beside, absent = torch.full((1, 2), 5), torch.zeros(1, 2, dtype=torch.bool)
    alone = run(network, z, source=source)
    for order in ((0, 1), (1, 0)):
        ids = torch.cat([(source, beside)[part] for part in order], 1)
        there = torch.cat([(real, absent)[part] for part in order], 1)
        padded = run(network, z, source=ids, source_real=there)
        torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


@each_pair
def test_no_source_is_a_source_without_a_token(encoder, decoder):
    network = make(stirred=True, decoder=decoder, **ENCODERS[encoder])
    z, source = masked(tokens(2, 6), 1, 4), tokens(2, 7)
    nothing = run(network, z)
    assert nothing.isfinite().all()
    empty = run(network, z, source=source, source_real=torch.zeros_like(source, dtype=torch.bool))
    torch.testing.assert_close(empty, nothing, atol=1e-5, rtol=1e-5)
    if encoder != "none":
        none_kept = run(network, z, source=source, kept=torch.zeros(2, dtype=torch.int64))
        torch.testing.assert_close(none_kept, nothing, atol=1e-5, rtol=1e-5)


@each_decoder
def test_hidden_concepts_change_nothing_and_kept_ones_do(decoder):
    network = make(stirred=True, decoder=decoder)
    z = masked(tokens(2, 6), 1, 4)
    vectors = torch.randn(2, 3, 16, generator=keyed_generator(4))
    real = torch.tensor([[True, True, False], [True, False, True]])

    def decoded(given, there):
        here = all_real(z)
        concepts = Concepts(vectors=given, real=there)
        return network.decode(z, torch.full((2,), 0.5), concepts, segments=torch.ones_like(z), positions=here)

    base = decoded(vectors, real)
    torch.testing.assert_close(decoded(torch.where(real[..., None], vectors, 9.0), real), base, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(decoded(torch.where(real[..., None], 9.0, vectors), real), base, atol=1e-3)
    assert not torch.allclose(decoded(vectors, torch.ones_like(real)), base, atol=1e-3)


@each_decoder
def test_kept_concepts_and_concepts_that_are_heard_and_changed(decoder):
    network = make(stirred=True, decoder=decoder)
    z, source = masked(tokens(2, 6), 1, 4), tokens(2, 7)
    everything = {"segments": torch.ones_like(z), "positions": all_real(z)}
    concepts = network.encode(source, real=all_real(source))
    heard = []
    kept = torch.tensor([1, 2])
    logits = run(network, z, source=source, kept=kept, hear=heard.append)
    t = torch.full((2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(logits, network.decode(z, t, concepts.keep(kept), **everything))
    assert torch.equal(heard[0].vectors, concepts.vectors)
    assert heard[0].real.all(), "heard before any is hidden"
    assert heard[0].vectors.requires_grad
    order = torch.tensor([1, 0])
    swapped = run(network, z, source=source, hear=lambda found: found.shuffled(order))
    torch.testing.assert_close(swapped, network.decode(z, t, concepts.shuffled(order), **everything))


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@each_decoder
def test_no_text_of_a_row_sees_another_one(decoder):
    """Exactly: replacing one text, padding included, leaves every bit of the others' logits."""
    network = make(stirred=True, decoder=decoder, decoder_layers=2)
    segments = torch.tensor([[1] * 4 + [2] * 3 + [3] * 3 + [0] * 2])
    z, source = masked(tokens(1, LENGTH), 1, 5, 8), tokens(1, 7)
    base = run(network, z, segments=segments, source=source)
    here = segments[0] != 0
    for text in range(4):
        inside = segments[0] == text
        changed = torch.where(inside & (z != MASK), others(z), z)
        logits = run(network, changed, segments=segments, source=source)
        assert torch.equal(logits[here & ~inside], base[here & ~inside])
        if text and decoder in ("denoising", "perceiver"):
            assert not torch.allclose(logits[inside], base[inside], atol=1e-4)


@each_decoder
def test_a_text_gets_the_logits_it_gets_alone(decoder):
    """Wherever it stands in its row, whatever stands beside and behind it, and beside rows that are empty."""
    network = make(stirred=True, decoder=decoder, decoder_layers=2)
    z, source = masked(tokens(1, 10), 1, 5, 8), tokens(1, 7)
    segments = torch.tensor([[1] * 4 + [2] * 4 + [0] * 2])
    packed = run(network, z, segments=segments, source=source, positions=segments != 0)
    for text, place in ((slice(0, 4), slice(0, 4)), (slice(4, 8), slice(4, 8))):
        torch.testing.assert_close(packed[place], run(network, z[:, text], source=source), atol=1e-4, rtol=1e-3)
    two = torch.cat([segments, torch.zeros_like(segments)])
    both = run(network, z.repeat(2, 1), segments=two, source=source.repeat(2, 1), positions=two != 0)
    torch.testing.assert_close(both, packed, atol=1e-5, rtol=1e-5)


@each_decoder
def test_projecting_wanted_places_alone_gives_their_logits(decoder):
    network = make(stirred=True, decoder=decoder)
    z, source = masked(tokens(3, 7), 2, 3), tokens(3, 5)
    wanted = torch.rand(3, 7, generator=keyed_generator(8)) < 0.4
    everywhere = run(network, z, source=source)
    torch.testing.assert_close(run(network, z, positions=wanted, source=source), everywhere[wanted.flatten()])
    assert run(network, z, positions=torch.zeros_like(wanted), source=source).shape == (0, V)


def test_a_row_that_is_longer_than_the_table_of_weights_is_refused():
    network = make(decoder="weighted")
    z = tokens(1, LENGTH + 1)
    with pytest.raises(ValueError, match=f"place {LENGTH} .* has {LENGTH} places"):
        run(network, z, source=tokens(1, 5))
    last = torch.zeros_like(z, dtype=torch.bool)
    last[:, LENGTH - 1] = True
    assert run(network, z, positions=last, source=tokens(1, 5)).shape == (1, V)


def test_the_weighted_decoder_mixes_concepts_with_the_weights_of_its_table():
    """By hand, without the MLP behind it."""
    network = make(decoder="weighted", stirred=True)
    with torch.no_grad():
        network.decoder.blocks[0].out.weight.zero_()
    vectors = torch.randn(1, 3, 16, generator=keyed_generator(4))
    z, real = tokens(1, 2), torch.tensor([[True, False, True]])
    logits = network.decode(
        z, torch.ones(1), Concepts(vectors=vectors, real=real), segments=torch.ones_like(z), positions=all_real(z)
    )
    for place in range(2):
        weights = network.decoder.table[place, [0, 1, 3]].softmax(0)
        mixed = weights[0] * network.decoder.nothing + weights[1] * vectors[0, 0] + weights[2] * vectors[0, 2]
        expected = network.head(mixed / mixed.square().mean().sqrt()) * network.head_scale
        torch.testing.assert_close(logits[place], expected, atol=1e-4, rtol=1e-4)


def test_a_convolution_mixes_a_token_with_its_neighbours_in_the_same_text():
    """By hand: the weight of each step times the neighbour's value, and nothing from elsewhere."""
    layer = LocalConvolution(4, 3)
    draw = keyed_generator(9)
    with torch.no_grad():
        layer.kernel.copy_(torch.randn(3, 4, generator=draw))
    x, segments = torch.randn(1, 6, 4, generator=draw), torch.tensor([[1, 1, 1, 2, 2, 0]])
    gate, value = layer.gate_value(x[0]).split(4, -1)
    for i in range(5):
        neighbours = [j for j in (i - 1, i, i + 1) if 0 <= j < 6 and segments[0, j] == segments[0, i]]
        mixed = sum(layer.kernel[j - i + 1] * value[j] for j in neighbours)
        expected = layer.out(functional.silu(gate[i]) * mixed)
        torch.testing.assert_close(layer(x, segments=segments)[0, i], expected, atol=1e-5, rtol=1e-5)


# ── where it begins ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_gates_are_zero_at_the_start_so_that_a_block_changes_no_token():
    """After `initialise`, which is where they were once overwritten; and a gate that is opened does change tokens."""
    network = make(decoder_layers=2, width=32)
    gated = [module for module in network.decoder.modules() if isinstance(module, ModulatedBranch)]
    assert len(gated) == 8
    for branch in gated:
        assert branch.modulation.weight.abs().max() == 0
        assert branch.modulation.bias.abs().max() == 0
    z, source = masked(tokens(1, 6), 2), tokens(1, 7)
    base = run(network, z, source=source)
    torch.testing.assert_close(run(network, z, source=others(source)), base, atol=0, rtol=0)
    changed = run(network, torch.where(z == MASK, z, others(z)), source=source)
    assert torch.equal(changed[2], base[2])
    with torch.no_grad():
        for branch in gated:
            branch.modulation.bias.fill_(1.0)
    opened = run(network, z, source=source)
    assert not torch.allclose(opened, base, atol=1e-3)
    assert not torch.allclose(run(network, z, source=others(source)), opened, atol=1e-3)


@each_decoder
@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("width", [32, 256])
def test_the_first_loss_is_log_v_within_ten_per_cent(decoder, head, width):
    size = 300
    network = make(vocab_size=size, width=width, decoder=decoder, head=head)
    z, target = torch.full((4, LENGTH), size - 1), tokens(4, LENGTH, seed=4, vocab_size=size)
    with torch.no_grad():
        logits = run(network, z, source=tokens(4, 30, vocab_size=size))
    logits[:, -1] = -torch.inf
    loss = float(functional.cross_entropy(logits, target.flatten()))
    assert loss == pytest.approx(math.log(size - 1), rel=0.1)


@pytest.mark.parametrize(
    ("encoder", "decoder", "head"), [*((*pair, "tied") for pair in PAIRS), ("perceiver", "denoising", "untied")]
)
def test_every_weight_is_trained_within_three_steps(encoder, decoder, head):
    """AdaLN-Zero opens its gates in the first, which lets what lies behind them move in the second."""
    network = make(decoder=decoder, head=head, **ENCODERS[encoder]).train()
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    moved = set()
    for step in (1, 2, 3):
        z = masked(tokens(4, 8, seed=step), 1, 2, 5)
        logits = run(network, z, t=0.2 * step, source=tokens(4, 9, seed=10 + step))
        functional.cross_entropy(logits, tokens(4, 8, seed=20 + step).flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        moved |= {name for name, p in network.named_parameters() if not torch.equal(p, start[name])}
    assert set(start) - moved == set()


def test_time_matters_to_the_denoising_decoder_once_its_gates_have_opened():
    z, source = masked(tokens(1, 6), 2), tokens(1, 7)
    network = make(stirred=True)
    assert not torch.allclose(
        run(network, z, t=0.200, source=source), run(network, z, t=0.205, source=source), atol=1e-4
    )


def test_weights_are_a_function_of_the_seed():
    one, again, other = make(), make(), make(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_words_of_the_text_can_be_copied_from_the_start():
    """A gate that opens hands concepts on, and the head finds the words that they are the mean of."""
    network = make(vocab_size=60, width=64, concepts=2, local_width=1)
    with torch.no_grad():
        for branch in network.decoder.modules():
            if isinstance(branch, ModulatedBranch):
                branch.modulation.bias[-64:].fill_(0.0)
        network.decoder.blocks[0].look.modulation.bias[-64:].fill_(4.0)
        source = torch.tensor([[5, 9, 5, 9, 5, 9]])
        logits = run(network, torch.full((1, 4), 59), source=source)
    assert set(logits[:, :-1].topk(2).indices.flatten().tolist()) == {5, 9}


def test_a_tied_head_is_the_embedding_times_one_number():
    tied, untied = make(head="tied"), make(head="untied")
    count = [sum(p.numel() for p in network.parameters()) for network in (tied, untied)]
    assert count[1] - count[0] == V * 16 - 1
    assert tied.head.weight is tied.embedding.weight
    torch.testing.assert_close(untied.head.weight, untied.embedding.weight * tied.head_scale)
    untied.load_state_dict({name: value for name, value in tied.state_dict().items() if name != "head_scale"})
    z, source = tokens(1, 4), tokens(1, 5)
    scaled = tied.head_scale * run(untied, z, source=source)
    torch.testing.assert_close(run(tied, z, source=source), scaled, atol=1e-4, rtol=1e-4)


def test_muon_gets_the_matrices_inside_the_layers_and_nothing_else():
    network = make(latent_width=6)
    chosen = {id(p) for p in network.hidden_matrices()}
    names = {name for name, p in network.named_parameters() if id(p) in chosen}
    left = {name for name, p in network.named_parameters() if id(p) not in chosen}
    assert all(name.endswith(".weight") and ("layers.0" in name or "blocks.0" in name) for name in names)
    assert len(names) == 7 + 4 * 3 + 2 + 2 + 4  # the encoder's; four readings, a convolution, an MLP; modulations
    assert {"embedding.weight", "encoder.latents", "decoder.scratch", "decoder.memory.nothing"} <= left
    assert not any("blocks.0" in name and "modulation.weight" in name for name in left)


@pytest.mark.parametrize("encoder", ["two_way", "recursive", "tokens", "none"])
def test_repeated_layers_are_those_of_the_encoder_and_then_of_the_decoder(encoder):
    network = make(decoder_layers=3, **ENCODERS[encoder])
    layers = list(network.repeated_layers())
    first = {"two_way": 2, "recursive": 1, "tokens": 1, "none": 0}[encoder]
    assert len(layers) == first + 3
    inside = {id(p) for p in network.encoder.parameters()}
    assert all(id(p) in inside for layer in layers[:first] for p in layer.parameters())
    assert all(id(p) not in inside for layer in layers[first:] for p in layer.parameters())
