"""The network of a thought: what it reads, who sees whom, and how it begins."""

from dataclasses import replace

import pytest
import torch

from remask.networks.thought import PretrainedTrunk, ThoughtNetwork
from remask.networks.thought.codecs import LearnedTable, OwnTable
from remask.networks.thought.network import BIDIRECTIONAL, CAUSAL
from remask.randomness import keyed_generator
from thoughts import EOS, MASK, V, question_rows, shaken, thought_network, thought_objective


def look(network, batch, *, t=0.4, z=None, before=None, positions=None, **answer):
    if z is None:
        shape = (*batch.ids.shape, network.codec.width)
        z = torch.randn(shape, generator=keyed_generator(3, "z"))
    with torch.no_grad():
        return network(
            z,
            torch.full((len(batch),), t, dtype=torch.float64),
            ids=batch.ids,
            noisy=batch.targets,
            segments=batch.segments,
            before=before,
            positions=batch.targets if positions is None else positions,
            **answer,
        )


def test_vectors_of_a_learned_table_have_mean_square_one_each_and_of_the_own_one_on_average():
    learned, own = thought_network(latent_width=5).codec, thought_network(latent="own").codec
    torch.testing.assert_close(learned.vectors().square().mean(-1), torch.ones(V))
    torch.testing.assert_close(own.vectors().square().mean(), torch.tensor(1.0))
    assert not own.vectors().requires_grad
    assert list(own.parameters()) == []


def test_at_the_start_all_tokens_are_about_as_likely():
    batch, network = question_rows(), thought_network(width=64, layers=2)
    loss = thought_objective()(network, batch, generator=torch.Generator().manual_seed(1))
    assert float(loss.nats.sum() / loss.weight.sum()) == pytest.approx(torch.tensor(V - 1.0).log().item(), rel=0.1)


def test_padding_changes_nothing():
    network, batch = shaken(thought_network()), question_rows(length=7)
    z = torch.randn(3, 7, 4, generator=keyed_generator(1, "z"))
    pad = torch.nn.functional.pad
    wide = replace(
        batch,
        **{name: pad(getattr(batch, name), (0, 3), value=0) for name in ("ids", "segments", "targets", "byte_lengths")},
    )
    padded = look(network, wide, z=pad(z, (0, 0, 0, 3), value=7.0))
    torch.testing.assert_close(padded, look(network, batch, z=z), atol=1e-5, rtol=1e-5)


def test_the_thought_reads_its_question_and_its_vectors_and_no_token_behind_them():
    network, batch = shaken(thought_network()), question_rows()
    asked = replace(batch, ids=batch.ids.clone())
    asked.ids[0, 0] += 1
    base = look(network, batch)
    counts = batch.targets.sum(1).tolist()
    moved = [
        float((a - b).abs().max()) for a, b in zip(base.split(counts), look(network, asked).split(counts), strict=True)
    ]
    assert moved[0] > 1e-3
    assert moved[1:] == [0.0, 0.0]
    hidden = replace(batch, ids=batch.ids.masked_fill(batch.targets, 0))
    torch.testing.assert_close(look(network, hidden), base, atol=0, rtol=0)


@pytest.mark.parametrize("sight", [BIDIRECTIONAL, CAUSAL])
def test_a_place_sees_what_its_sight_says(sight):
    network, batch = shaken(thought_network(sight=sight)), question_rows(("1=?2#34",))
    z = torch.randn(1, 10, 4, generator=keyed_generator(1, "z"))
    base = look(network, batch, z=z)
    for place in range(3, 10):
        other = z.clone()
        other[0, place] += 1.0
        seen = (look(network, batch, z=other) - base).abs().amax(-1) > 1e-6
        due = [sight is BIDIRECTIONAL or here >= place for here in range(3, 10)]
        assert seen.tolist() == due


def test_memory_and_time_in_the_last_layer_are_nothing_at_the_start():
    batch, network = question_rows(), thought_network()
    before = torch.randn(3, 10, 4, generator=keyed_generator(2, "before"))
    torch.testing.assert_close(look(network, batch, before=before), look(network, batch), atol=0, rtol=0)
    assert float(network.modulation.weight.abs().max()) == 0.0
    shaken(network)
    assert not torch.allclose(look(network, batch, before=before), look(network, batch), atol=1e-3)
    assert not torch.allclose(look(network, batch, t=0.8), look(network, batch), atol=1e-3)


def test_an_answer_sees_the_row_and_its_own_past_and_the_row_does_not_see_it():
    network, batch = shaken(thought_network()), question_rows(("1=?2#34",))
    answer, wanted = torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool)
    base = look(network, batch, answer=answer, wanted=wanted)
    for place in range(3):
        other = answer.clone()
        other[0, place] = 9
        moved = (look(network, batch, answer=other, wanted=wanted) - base).abs().amax(-1) > 1e-6
        assert moved.tolist() == [here > place for here in range(3)]
    z = torch.zeros(1, 10, 4)
    assert not torch.allclose(look(network, batch, z=z, answer=answer, wanted=wanted), base, atol=1e-3)
    longer = torch.cat([answer, torch.tensor([[5]])], 1), torch.cat([wanted, torch.zeros(1, 1, dtype=torch.bool)], 1)
    padded = look(network, batch, answer=longer[0], wanted=longer[1])
    torch.testing.assert_close(padded, base, atol=1e-5, rtol=1e-5)


def test_a_thought_can_be_spoken_as_vectors():
    network, batch = thought_network(speaks=4), question_rows()
    assert look(network, batch).shape == (int(batch.targets.sum()), 4)


# ── on a pretrained language model ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["qwen3", "gpt2", "qwen2-moe"])
def adapted(request):
    """A network of thoughts on a tiny language model, its weights random."""
    from pretrained_models import tiny_model

    trunk = PretrainedTrunk(tiny_model(request.param), mask_id=MASK, reads_masks=True)
    codec = LearnedTable(vocab_size=258, width=4)
    codec.initialise(keyed_generator(1, "table"))
    network = ThoughtNetwork(trunk, codec, sight=BIDIRECTIONAL, start_id=EOS, remembers=True)
    network.initialise(keyed_generator(1, "thought"))
    return network.eval()


def test_a_language_model_sees_both_sides_and_no_padding(adapted):
    batch = question_rows(("1=?2#34",), length=7)
    z = torch.randn(1, 7, 4, generator=keyed_generator(1, "z"))
    base = look(adapted, batch, z=z)
    for place in range(3, 7):
        other = z.clone()
        other[0, place] += 2.0
        assert bool(((look(adapted, batch, z=other) - base).abs().amax(-1) > 1e-6).all())
    pad = torch.nn.functional.pad
    wide = replace(
        batch,
        **{name: pad(getattr(batch, name), (0, 2), value=0) for name in ("ids", "segments", "targets", "byte_lengths")},
    )
    padded = look(adapted, wide, z=pad(z, (0, 0, 0, 2), value=7.0))
    torch.testing.assert_close(padded, base, atol=1e-4, rtol=1e-4)


def test_the_mask_has_a_vector_of_its_own_in_a_language_model(adapted):
    batch = question_rows(("1=?2#34",))
    blind = replace(batch, ids=batch.ids.masked_fill(~batch.targets, MASK))
    base = look(adapted, blind)
    with torch.no_grad():
        adapted.trunk.mask_embedding[0].add_(1.0)
    assert not torch.allclose(look(adapted, blind), base, atol=1e-4)
    with torch.no_grad():
        adapted.trunk.mask_embedding[0].sub_(1.0)


def test_a_tied_projection_is_no_parameter_of_its_own():
    trunk = thought_network().trunk
    assert [p is trunk.head.weight for p in trunk.projection()] == [True]
    trunk.tie_head()
    assert list(trunk.projection()) == []
    assert isinstance(OwnTable(trunk.embedding).vectors(), torch.Tensor)
