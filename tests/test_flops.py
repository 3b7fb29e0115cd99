"""Operations of training: what is measured is what the closed form says, and measuring changes nothing."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from pretrained_models import tiny_model
from remask.config.build import build_model
from remask.config.load import load_recipe
from remask.data.batch import Batch
from remask.flops import (
    active_parameters,
    analytic_flops,
    analytic_forward_flops,
    forward_flops,
    training_flops,
    typical_row,
)
from remask.laboratory.experts import expert_arms
from remask.model import Model
from remask.networks.experts import Experts
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.reading import read_both_ways
from remask.tokenizers import ByteTokenizer

LENGTH, WIDTH, LAYERS, V, HIDDEN = 16, 32, 2, ByteTokenizer().vocab_size, 96
SMALL = [f"network.width={WIDTH}", f"network.layers={LAYERS}", "network.heads=2", f"data.length={LENGTH}"]
SMALL += ["tokenizer.kind=byte", f"network.mlp_width={HIDDEN}"]
BLOCKS = ["objective.block_length=4", "sampling.block_length=4"]

HYBRID = ["network.kind=reversible", "network.coupling=affine", "network.block_types=[standard,reversible]"]

CASES = {
    "masking": ("mdlm", []),
    "tied head": ("mdlm", ["network.head=tied"]),
    "experts": ("mdlm-moe", []),
    "causal": ("ar", []),
    "clean context": ("bd3lm", BLOCKS),
    "uniform noise": ("udlm", []),
    "own proposals": ("proofread", []),
    "a fixed rate": ("mlm", []),
    "reversible": ("mdlm", ["network.kind=reversible"]),
    "affine and hybrid": ("bd3lm", [*BLOCKS, *HYBRID]),
}


@cache
def model_of(recipe: str, *changes: str) -> Model:
    return build_model(load_recipe(recipe, [*SMALL, *changes]), ByteTokenizer(), device=torch.device("cpu"))


def rows(*lengths: int) -> Batch:
    """A row of text for each length, padded."""
    targets = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    return Batch(
        ids=torch.arange(LENGTH).repeat(len(lengths), 1),
        segments=targets.long(),
        targets=targets,
        byte_lengths=targets.long(),
        rows=torch.arange(len(lengths)),
        global_size=len(lengths),
    )


BATCH = rows(*[LENGTH] * 4)


@pytest.mark.parametrize("case", CASES)
def test_what_is_measured_is_what_the_closed_form_says(case):
    recipe, changes = CASES[case]
    model = model_of(recipe, *changes)
    assert training_flops(model, BATCH) == analytic_flops(model, BATCH) > 0
    assert forward_flops(model, BATCH) == analytic_forward_flops(model, BATCH)


QUESTION = 5
THOUGHTS = {
    "looked at twice now and then, with written answers": ("thought-arithmetic", []),
    "of a drawn table": ("thought-arithmetic", ["network.latent=random"]),
    "without answers, and with a tied head": ("thought-cpu", ["network.head=tied"]),
    "of experts": ("thought-cpu", ["network.experts=8", "objective.self_conditioning=0"]),
    "by the squared error of tokens": (
        "thought-cpu",
        ["objective.loss=clean", "network.latent=own", "network.latent_width=null"],
    ),
    "by that of tokens of a drawn table": ("thought-cpu", ["objective.loss=clean", "network.latent=random"]),
    "by that of vectors": (
        "thought-cpu",
        ["objective.loss=velocity", "network.readout=vectors", "network.latent=random"],
    ),
    "of columns of its logits": ("thought-naive", []),
}


def questions() -> Batch:
    """Rows of a question, its response with a mark, and an end of text."""
    ids = torch.tensor([[*b"12+3?15 #### 15", ByteTokenizer().eos_id]]).repeat(4, 1)
    return replace(BATCH, ids=ids, targets=(torch.arange(LENGTH) >= QUESTION).expand(4, -1))


@pytest.mark.parametrize("case", THOUGHTS)
def test_a_thought_is_measured_as_its_closed_form_says(case):
    recipe, changes = THOUGHTS[case]
    model = model_of(recipe, *changes)
    assert training_flops(model, questions()) == pytest.approx(analytic_flops(model, questions()), rel=1e-12)
    assert forward_flops(model, questions()) == pytest.approx(analytic_forward_flops(model, questions()), rel=1e-12)


def test_a_second_look_in_half_of_the_steps_costs_half_a_forward_pass():
    twice, once = (model_of("thought-cpu", f"objective.self_conditioning={share}") for share in (0.5, 0))
    step, look = training_flops(once, questions()), forward_flops(once, questions())
    assert training_flops(twice, questions()) == pytest.approx(step + look / 2, rel=0.02)


@pytest.mark.parametrize("conditioning", ["adaln_zero", "adaln_bounded"])
def test_with_a_time_they_agree_but_for_what_no_gradient_goes_through(conditioning):
    """The embedding of the time reads no weights, so that one product of its backward pass is not made."""
    model = model_of("mdlm", f"network.time_conditioning={conditioning}")
    measured, expected = training_flops(model, BATCH), analytic_flops(model, BATCH)
    assert expected - measured == 2 * WIDTH**2 / LENGTH
    assert measured == pytest.approx(expected, rel=0.01)


def test_a_dense_layer_and_its_head_are_counted_by_hand():
    """Two thirds are backward; half of the tokens are masked in the mean, and ask for logits."""
    token = LAYERS * (2 * 4 * WIDTH**2 + 2 * 3 * WIDTH * HIDDEN + 2 * 2 * LENGTH * WIDTH)
    head = 2 * WIDTH * V
    assert forward_flops(model_of("ar"), BATCH) == token + head
    assert training_flops(model_of("ar"), BATCH) == 3 * (token + head)
    assert training_flops(model_of("mdlm"), BATCH) == 3 * (token + head / 2)


def test_experts_cost_the_dense_network_and_their_router():
    dense, mixed = (training_flops(model_of(name), BATCH) for name in ("mdlm", "mdlm-moe"))
    assert mixed - dense == 3 * LAYERS * 2 * WIDTH * 8


def test_reversible_blocks_cost_what_standard_ones_do_and_their_scales_a_matrix_a_branch():
    """However activations are kept: what is computed again counts once."""
    plain = training_flops(model_of("mdlm"), BATCH)
    for activations in ("inverted", "stored"):
        kept = ["network.kind=reversible", f"network.activations={activations}"]
        assert training_flops(model_of("mdlm", *kept), BATCH) == plain
        scaled = training_flops(model_of("mdlm", *kept, "network.coupling=affine"), BATCH)
        assert scaled - plain == 3 * LAYERS * 2 * 2 * WIDTH**2


def test_more_experts_a_token_cost_more():
    two, four = (
        training_flops(model_of("mdlm-moe", "network.mlp_width=null", "network.expert_width=48", k), BATCH)
        for k in ("network.experts_per_token=2", "network.experts_per_token=4")
    )
    assert four - two == 3 * LAYERS * 2 * 6 * WIDTH * 48


@pytest.mark.parametrize("change", ["training.gradient_checkpointing=true", "network.dropout=0.5"])
def test_how_layers_are_computed_does_not_count(change):
    assert training_flops(model_of("mdlm", change), BATCH) == training_flops(model_of("mdlm"), BATCH)


def test_padding_is_paid_for_by_the_tokens_that_count():
    """Half of the rows' places are text: each of those costs the body twice."""
    full, half = (analytic_flops(model_of("ar"), batch) for batch in (BATCH, rows(8, 8)))
    head = 3 * 2 * WIDTH * V
    assert half - head == 2 * (full - head)
    assert training_flops(model_of("ar"), rows(8, 8)) == half


def test_the_row_that_is_measured_is_usual_in_length_and_in_noise():
    model = model_of("mdlm")
    row = typical_row(model, rows(16, 9, 2, 10))
    assert row.targets.sum() == 9
    hidden = []

    def answer(z, t, *, segments, positions):
        hidden.append(positions.sum().item())
        return torch.zeros(int(positions.sum()), V)

    model.objective(answer, row, generator=torch.Generator().manual_seed(0))
    assert len(row) == 1
    assert len(hidden) == 1


def test_measuring_changes_nothing():
    model = model_of("mdlm-moe", "network.dropout=0.3")
    model.network.train()
    model.network.blocks[1].eval()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    modes, generator = [module.training for module in model.network.modules()], torch.random.get_rng_state()
    assert training_flops(model, BATCH) == training_flops(model, BATCH)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert all(parameter.grad is None for parameter in model.network.parameters())
    assert [module.training for module in model.network.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert not any(part.counted().any() for part in model.network.modules() if isinstance(part, Experts))


def pretrained(kind: str) -> Model:
    backbone = tiny_model(kind)
    network = PretrainedDenoiser(backbone, reading=read_both_ways, mask_id=257, start_id=256)
    plain = model_of("mdlm")
    return Model(
        network=network, process=plain.process, objective=plain.objective, tokenizer=plain.tokenizer, length=LENGTH
    )


def test_a_pretrained_network_is_measured_and_a_frozen_one_costs_less():
    """Llama by hand: 16 wide, 32 hidden, two heads that share keys and values; a row begins with a start token."""
    model = pretrained("llama")
    place = 2 * (2 * (16 * 16 * 2 + 16 * 8 * 2) + 2 * 3 * 16 * 32 + 2 * 2 * (LENGTH + 1) * 16)
    expected = (LENGTH + 1) / LENGTH * place + 2 * 16 * V / 2
    assert forward_flops(model, BATCH) == expected
    assert training_flops(model, BATCH) == 3 * expected
    assert analytic_flops(model, BATCH) is None
    for parameter in model.network.backbone.parameters():
        parameter.requires_grad_(False)
    attention = (LENGTH + 1) / LENGTH * 2 * 2 * 2 * (LENGTH + 1) * 16  # its gradient meets no weight
    assert training_flops(model, BATCH) == 2 * expected + attention


def test_what_has_no_formula_is_not_counted_at_all():
    """transformers' grouped products of experts: better no number than one without them."""
    model = pretrained("mixtral")
    model.network.backbone.config._experts_implementation = "grouped_mm"
    assert training_flops(model, BATCH) is None
    model.network.backbone.config._experts_implementation = "eager"
    assert training_flops(model, BATCH) > 0


def test_active_parameters_leave_out_the_experts_that_are_not_chosen():
    dense, mixed = model_of("mdlm").network, model_of("mdlm-moe").network
    routers = LAYERS * (8 * WIDTH + 8)
    assert active_parameters(dense) == model_of("mdlm").parameters
    assert active_parameters(mixed) == active_parameters(dense) + routers
    network = pretrained("mixtral").network
    unused = 2 * 2 * 3 * 16 * 32
    assert active_parameters(network) == sum(p.numel() for p in network.parameters()) - unused


@pytest.mark.parametrize("recipe", ["mdlm-moe", "ar"])
def test_dense_arms_beside_a_mixture_have_its_operations_and_its_parameters(recipe):
    changes = ("network.experts=6", "network.experts_per_token=3", "network.expert_width=32", "network.mlp_width=null")
    mixture = load_recipe(recipe, [*SMALL, *changes])
    built, operations, parameters = (model_of(recipe, *changes, *arm) for arm in expert_arms(mixture).values())
    assert training_flops(operations, BATCH) == pytest.approx(training_flops(built, BATCH), rel=1e-12)
    sizes = [sum(p.numel() for p in model.network.parameters()) for model in (built, parameters)]
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-3)  # the mixture steers its use by a number an expert
    assert training_flops(parameters, BATCH) > 1.3 * training_flops(built, BATCH)


def test_a_depth_that_is_drawn_costs_the_mean_of_what_each_depth_does():
    """Counted at each depth alone; the network keeps its own."""
    changes = ["network.encoder=recursive", f"network.width={WIDTH}", "network.heads=2", "tokenizer.kind=byte"]
    changes += [f"data.length={LENGTH}", "data.prefix=8", "data.stride=8", "network.concepts=3"]
    batch = rows(16, 16)
    behind = replace(batch, targets=batch.targets & (torch.arange(LENGTH) >= 8))

    def cost(*given: str, depth: int) -> float:
        recipe = load_recipe("concept-diffusion", [*changes, "objective.nested_share=0", *given])
        model = build_model(recipe, ByteTokenizer(), device=torch.device("cpu"))
        found = training_flops(model, behind)
        assert found is not None
        assert model.network.encoder.depth == depth
        return found

    alone = [cost(f"network.layers={depth}", depth=depth) for depth in (1, 2, 3, 4)]
    assert alone[0] < alone[1]
    assert cost("network.layers=4", "network.min_depth=1", depth=4) == pytest.approx(sum(alone) / 4)
    assert cost("network.layers=4", "network.min_depth=4", depth=4) == alone[3]
