"""Pretrained causal language models as networks: what sees what, what is predicted where, what is trained."""

import pytest
import torch

from pretrained_models import CONFIGS, EOS, VOCABULARY, tiny_model
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.reading import read_both_ways, read_causally, read_in_blocks
from remask.networks.sight import attention_fault, due_sight, habit_fault, true_sight

MASK = VOCABULARY - 1
WHOLE = [kind for kind in CONFIGS if kind != "qwen2-window"]
READINGS = {"both ways": read_both_ways, "causally": read_causally, "in blocks": read_in_blocks(2)}


def denoiser(kind="llama", *, reading=read_both_ways, attention="sdpa", double=False, anneal_steps=0):
    backbone = tiny_model(kind)
    backbone.set_attn_implementation(attention)
    network = PretrainedDenoiser(backbone, reading=reading, mask_id=MASK, start_id=EOS, anneal_steps=anneal_steps)
    if double and hasattr(backbone.config, "num_experts_per_tok"):
        backbone.set_experts_implementation("eager")  # the grouped product of experts knows no float64
    return network.double().eval() if double else network.eval()


def logits(network, ids, *, segments=None, positions=None, context=None):
    """Logits [B L V] (at all places), or [M V] at `positions`."""
    every = torch.ones_like(ids, dtype=torch.bool)
    segments = every.long() if segments is None else segments
    with torch.no_grad():
        found = network(
            ids,
            torch.zeros(len(ids)),
            segments=segments,
            positions=every if positions is None else positions,
            **({} if context is None else {"context": context}),
        )
    return found if positions is not None else found.unflatten(0, ids.shape)


def row(*ids):
    return torch.tensor([ids])


# ── who sees whom ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_attention_is_open_within_a_document_and_closed_between_documents(kind, attention):
    segments = row(1, 1, 1, 1, 1, 2, 2, 2)
    for reading in READINGS.values():
        network = denoiser(kind, reading=reading, attention=attention)
        found = true_sight(network, segments, vocab_size=VOCABULARY)
        assert torch.equal(found, due_sight(reading, segments))
        assert attention_fault(network, vocab_size=VOCABULARY) is None


def test_what_a_reading_shows_is_what_its_name_says():
    segments = row(1, 1, 1, 1, 1, 2, 2, 2)
    place, document = torch.arange(8), segments[0]
    same = document[:, None] == document
    block = place // 2
    assert torch.equal(due_sight(read_both_ways, segments), same)
    assert torch.equal(due_sight(read_causally, segments), same & (place < place[:, None]))
    assert torch.equal(due_sight(read_in_blocks(2), segments), same & (block <= block[:, None]))
    assert torch.equal(due_sight(read_in_blocks(8), segments), same)


def test_a_backbone_that_ignores_its_mask_is_found_out():
    network = denoiser()
    base = network.backbone.base_model
    forward = base.forward
    base.forward = lambda attention_mask, **rest: forward(**rest)
    assert "do not see" in (attention_fault(network, vocab_size=VOCABULARY) or "")
    base.forward = lambda attention_mask, **rest: forward(attention_mask=attention_mask | True, **rest)
    assert "that the attention mask hides" in (attention_fault(network, vocab_size=VOCABULARY) or "")


def test_a_boolean_mask_handed_to_eager_attention_would_mask_nothing(monkeypatch):
    """The library adds it to the scores: the reason for `additive_mask`."""
    network = denoiser(attention="eager")
    assert attention_fault(network, vocab_size=VOCABULARY) is None
    monkeypatch.setattr("remask.networks.pretrained.additive_mask", lambda allowed, backbone, *, dtype: allowed)
    assert "that the attention mask hides" in (attention_fault(network, vocab_size=VOCABULARY) or "")


def test_a_model_whose_logits_are_capped_or_that_sees_ahead_is_found_out():
    backbone = tiny_model("llama")
    check = {"device": torch.device("cpu"), "vocab_size": VOCABULARY}
    assert habit_fault(backbone, **check) is None
    forward = backbone.forward

    def capped(**inputs):
        output = forward(**inputs)
        output.logits = output.logits.tanh()
        return output

    backbone.forward = capped
    assert "scaled or capped" in (habit_fault(backbone, **check) or "")
    backbone.forward = forward
    base = backbone.base_model.forward
    sees = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    backbone.base_model.forward = lambda **inputs: base(**{**inputs, "attention_mask": sees})
    assert "see later ones" in (habit_fault(backbone, **check) or "")


# ── what is predicted where ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", WHOLE)
def test_read_causally_it_is_the_language_model_itself(kind):
    network = denoiser(kind, reading=read_causally, double=True)
    ids = row(5, 9, 200, 17, 3)
    with torch.no_grad():
        own = network.backbone(input_ids=torch.cat([row(EOS), ids[:, :-1]], 1)).logits
    torch.testing.assert_close(logits(network, ids), own, rtol=0, atol=1e-10)


def test_a_sliding_window_gives_way_to_the_mask():
    """As the module says: up to the window's length the model is itself, and beyond it sees more than it used to."""
    network = denoiser("qwen2-window", reading=read_causally, double=True)
    ids = row(5, 9, 200, 17, 3)
    with torch.no_grad():
        own = network.backbone(input_ids=torch.cat([row(EOS), ids[:, :-1]], 1)).logits
    moved = (logits(network, ids) - own).abs().amax(-1)[0] > 1e-10
    assert moved.tolist() == [False, False, True, True, True]


def test_each_document_of_a_row_is_read_as_if_it_were_alone():
    one, other = row(5, 9, 200, 17), row(8, 4, 250)
    segments = row(1, 1, 1, 1, 2, 2, 2)
    for reading in (read_both_ways, read_causally, read_in_blocks(4)):
        network = denoiser(reading=reading, double=True)
        together = logits(network, torch.cat([one, other], 1), segments=segments)
        alone = torch.cat([logits(network, one), logits(network, other)], 1)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def test_padding_and_rows_beside_it_change_nothing():
    ids = torch.tensor([[5, 9, 200, 17, 3, 0, 0, 0], [7, 7, 1, 2, 3, 4, 5, 6]])
    segments = torch.tensor([[1, 1, 2, 2, 2, 0, 0, 0], [1, 2, 3, 4, 4, 4, 4, 4]])
    for reading in READINGS.values():
        network = denoiser(reading=reading, double=True)
        both = logits(network, ids, segments=segments)[0, :5]
        alone = logits(network, ids[:1, :5], segments=segments[:1, :5])[0]
        torch.testing.assert_close(both, alone, rtol=0, atol=1e-10)
        assert bool(both.isfinite().all())


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_the_projection_runs_where_logits_are_wanted_in_row_major_order(reading):
    ids = torch.tensor([[5, 9, 200, 17], [8, 4, 250, 1]])
    positions = torch.tensor([[False, True, False, True], [True, False, False, False]])
    network = denoiser(reading=reading, double=True)
    whole = logits(network, ids)[positions]
    rows = []
    network.backbone.get_output_embeddings().register_forward_pre_hook(lambda _, given: rows.append(given[0]))
    torch.testing.assert_close(logits(network, ids, positions=positions), whole, rtol=0, atol=1e-10)
    assert len(rows.pop()) == 3


def test_the_mask_token_reads_its_own_vector_which_is_trained():
    network = denoiser()
    network.train()
    ids = row(5, MASK, 200)
    found = network(ids, torch.zeros(1), segments=row(1, 1, 1), positions=ids == MASK)
    found.square().sum().backward()
    assert network.mask_embedding.grad.abs().sum() > 0
    assert network.backbone.get_input_embeddings().weight.grad[MASK].abs().sum() == 0
    mean = network.backbone.get_input_embeddings().weight.mean(0)
    torch.testing.assert_close(network.mask_embedding, mean, check_dtype=False)


# ── blocks ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2-moe"])
def test_one_doubled_pass_equals_a_pass_over_each_block_after_its_clean_past(kind):
    network = denoiser(kind, reading=read_in_blocks(3), double=True)
    clean = torch.tensor([[5, 9, 200, 17, 3, 8, 21, 90], [7, 6, 1, 2, 3, 4, 5, 6]])
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1]])
    noisy = torch.where(torch.tensor([[1, 0, 1, 1, 1, 0, 1, 1]]).bool(), MASK, clean)
    doubled = logits(network, noisy, segments=segments, context=clean)
    for start in range(0, 8, 3):
        stop = min(start + 3, 8)
        seen = torch.cat([clean[:, :start], noisy[:, start:stop]], 1)
        single = logits(network, seen, segments=segments[:, :stop])[:, start:]
        torch.testing.assert_close(doubled[:, start:stop], single, rtol=0, atol=1e-10)


def test_a_clean_block_is_hidden_from_the_noisy_blocks_up_to_it():
    network = denoiser(reading=read_in_blocks(2), double=True)
    clean = row(5, 9, 200, 17, 3, 8)
    noisy = torch.full_like(clean, MASK)
    changed = clean.clone()
    changed[0, 2:4] = row(40, 41)
    one, other = logits(network, noisy, context=clean), logits(network, noisy, context=changed)
    moved = (one != other).any(-1)[0]
    assert moved.tolist() == [False] * 4 + [True] * 2


@pytest.mark.parametrize("kind", CONFIGS)
def test_with_attention_closed_a_denoiser_still_is_the_language_model(kind):
    """Of token i a closed denoiser sees x_{<i} alone: it begins where the language model stopped."""
    ids = row(5, 9, 200, 17, 3, 8)
    own = logits(denoiser(kind, reading=read_causally, double=True), ids)
    for reading, given in ((read_both_ways, {}), (read_in_blocks(1), {"context": ids}), (read_in_blocks(3), {})):
        network = denoiser(kind, reading=reading, double=True, anneal_steps=10)
        network.train()
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        network.begin_step(1)
        torch.testing.assert_close(logits(network, ids, **given), own, rtol=0, atol=1e-10)


# ── opening attention ──────────────────────────────────────────────────────────────────────────────────────────


def sight_at(network, step):
    """How many places ahead of its own the logits at place 0 see at a training step."""
    network.train()
    network.begin_step(step)
    ids = row(5, 9, 200, 17, 3, 8, 21, 90)
    page = network.reading(
        ids,
        segments=torch.ones_like(ids),
        positions=torch.ones_like(ids, dtype=torch.bool),
        context=None,
        start_id=EOS,
        opened=network.opened,
    )
    return int(page.mask[0, 0, 0].sum()) - 1


def test_attention_opens_step_by_step_from_causal_to_all():
    network = denoiser(anneal_steps=8)
    assert [sight_at(network, step) for step in range(1, 12)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert [sight_at(denoiser(), step) for step in (1, 2)] == [8, 8]


def test_how_far_it_is_open_is_a_function_of_the_step_alone_and_evaluation_is_always_open():
    one, other = denoiser(anneal_steps=8), denoiser(anneal_steps=8)
    for step in range(1, 6):
        one.begin_step(step)
    other.begin_step(5)
    assert one.opened == other.opened == 0.5
    ids = row(5, 9, MASK, 17)
    torch.testing.assert_close(logits(one.eval(), ids), logits(denoiser(), ids), rtol=0, atol=0)


# ── mistakes and parts ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reading", [read_both_ways, read_causally])
def test_a_clean_context_is_refused_where_there_are_no_blocks(reading):
    with pytest.raises(ValueError, match="does not read in blocks"):
        logits(denoiser(reading=reading), row(1, 2), context=row(1, 2))
    with pytest.raises(ValueError, match="a block holds 1 token or more"):
        read_in_blocks(0)


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "qwen2-moe"])
def test_hidden_matrices_are_the_trained_matrices_of_the_blocks(kind):
    network = denoiser(kind)
    names = {id(p): name for name, p in network.named_parameters()}
    hidden = {names[id(p)] for p in network.hidden_matrices()}
    assert hidden
    assert all(".layers." in name or ".h." in name for name in hidden)
    blocks = {n for n, p in network.named_parameters() if p.ndim == 2 and (".layers." in n or ".h." in n)}
    assert hidden == blocks


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2-moe"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_half_precision_changes_logits_and_gradients_little(kind, attention):
    network = denoiser(kind, attention=attention)
    ids = row(5, 9, MASK, 17)
    full = logits(network, ids)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(ids, torch.zeros(1), segments=row(1, 1, 1, 1), positions=ids > 0)
        half.float().logsumexp(-1).sum().backward()
    assert (half.float() - full[0]).abs().max() < 0.2 * full.abs().max()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
