"""Block-wise sampling: its law, what a network is shown, where rows end."""

from functools import partial

import pytest
import torch

from cached import END, MASK, MASKING, Computed, make_model
from doubles import Posterior, Table, make_noise, make_process
from exact import chi_squared, random_joint
from remask.config.build import build_model, build_sampler
from remask.config.schema import Recipe
from remask.errors import UserError
from remask.networks import block_causal
from remask.randomness import keyed_generator
from remask.samplers import Prompt, ancestral, blank_prompt, blockwise, confidence
from remask.schedules import time_grid
from remask.tokenizers import CharacterTokenizer

PROCESS, NOISE = make_process("masking", "linear"), make_noise("masking", "linear")
LENGTH = 5


class Watching(Table):
    """A wrong network that remembers what it was shown."""

    def __init__(self, schedule: str = "linear") -> None:
        super().__init__(make_process("masking", schedule), LENGTH, seed=2)
        self.shown, self.times = [], []

    def predict(self, z, t):
        self.shown.append(z.clone())
        self.times.append(t.clone())
        return super().predict(z, t)


def draw_in_twos(model, **options):
    common = {"times": time_grid(3), "prompt": blank_prompt(6, LENGTH), "block_length": 2, "walk": ancestral}
    return blockwise(model, generator=keyed_generator(1), **(common | options))


@pytest.mark.parametrize("walk", [ancestral, confidence])
def test_with_blocks_of_one_token_a_true_posterior_is_drawn_from_exactly(walk):
    """The chain rule: one call a token, whatever the grid."""
    joint = random_joint(NOISE, 3, seed=7)
    model = Posterior(PROCESS, NOISE, joint)
    drawn = blockwise(
        model, [1.0, 0.0], prompt=blank_prompt(3000, 3), generator=keyed_generator(1), block_length=1, walk=walk
    ).numpy()
    assert model.calls == 3
    assert chi_squared(drawn, joint.texts, joint.p) > 1e-4


def test_a_block_of_the_whole_row_drawn_in_one_step_is_rejected_by_the_same_test():
    joint = random_joint(NOISE, 3, seed=7)
    drawn = blockwise(
        Posterior(PROCESS, NOISE, joint),
        [1.0, 0.0],
        prompt=blank_prompt(3000, 3),
        generator=keyed_generator(1),
        block_length=3,
        walk=ancestral,
    ).numpy()
    assert chi_squared(drawn, joint.texts, joint.p) < 1e-4


@pytest.mark.parametrize("walk", [ancestral, confidence])
def test_one_block_is_the_sampler_itself(walk):
    alone = walk(Watching(), time_grid(3), prompt=blank_prompt(6, LENGTH), generator=keyed_generator(1))
    assert torch.equal(draw_in_twos(Watching(), block_length=LENGTH, walk=walk), alone)
    assert torch.equal(draw_in_twos(Watching(), block_length=LENGTH + 9, walk=walk), alone)


def test_a_network_that_sees_both_sides_is_shown_finished_blocks_and_masks_behind():
    model = Watching()
    z = draw_in_twos(model)
    assert len(model.shown) == 9
    for call, shown in enumerate(model.shown):
        start = 2 * (call // 3)
        assert torch.equal(shown[:, :start], z[:, :start])
        assert bool((shown[:, start + 2 :] == PROCESS.mask_id).all())


def test_given_tokens_further_right_are_shown_from_the_start():
    model = Watching()
    prompt = Prompt(ids=torch.full((6, LENGTH), 3), fixed=torch.tensor([[False, False, False, False, True]] * 6))
    draw_in_twos(model, prompt=prompt)
    assert all(bool((shown[:, 4] == 3).all()) for shown in model.shown)
    assert len(model.shown) == 6, "a block without free places costs no call"


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_whole_row_is_as_noisy_as_its_masked_share(schedule):
    """At the start of each block, with 5, 3 and 1 of 5 places masked; rows count their own free places."""
    model = Watching(schedule)
    fixed = torch.zeros(2, LENGTH, dtype=torch.bool)
    fixed[1, 0] = True
    draw_in_twos(model, prompt=Prompt(ids=torch.full((2, LENGTH), 3), fixed=fixed))
    left = torch.tensor([[0.0, 0.0], [2 / 5, 1 / 4], [4 / 5, 3 / 4]], dtype=torch.float64)
    alpha = torch.stack([model.process.schedule.alpha(model.times[call]) for call in (0, 3, 6)])
    torch.testing.assert_close(alpha, left, rtol=0, atol=1e-9)


def test_frames_count_steps_over_all_blocks_and_end_with_the_result():
    frames = []
    z = draw_in_twos(Watching(), on_step=frames.append)
    assert [frame.step for frame in frames] == list(range(10))
    assert [frame.t for frame in frames] == pytest.approx([1 - k / 9 for k in range(10)])
    assert torch.equal(frames[-1].z, z)
    assert bool((frames[0].z == PROCESS.mask_id).all())
    assert bool((frames[3].z[:, 2:] == PROCESS.mask_id).all())


@pytest.mark.parametrize("seed", range(3))
def test_a_row_ends_at_the_first_stop_behind_its_prompt(seed):
    """Stops among given tokens end nothing, given tokens stay, and only what is behind a drawn stop is filled."""
    model = make_model(block_causal(4), MASKING, seed=seed + 1)
    ids = torch.full((40, 14), END)
    fixed = torch.arange(14) < (torch.arange(40) % 7)[:, None]
    fixed[3, 9] = True
    frames = []
    z = blockwise(
        model,
        time_grid(3),
        prompt=Prompt(ids=ids, fixed=fixed),
        generator=keyed_generator(seed),
        block_length=4,
        walk=ancestral,
        stop=END,
        on_step=frames.append,
    )
    assert bool((z[fixed] == END).all())
    behind = Prompt(ids=ids, fixed=fixed).behind()
    ended = ((z == END) & behind).cumsum(-1) > 0
    assert bool((z[ended] == END).all())
    assert not bool((z == MASK).any())
    assert bool(ended[:, 11].any())
    assert len({tuple(row) for row in (~ended).long().sum(-1)[:, None].tolist()}) > 1, "rows end in different places"
    assert torch.equal(frames[-1].z, z)


def test_once_every_row_has_ended_no_call_is_made():
    model = make_model(block_causal(2), MASKING)
    computed, frames = Computed(model), []
    z = blockwise(
        model,
        time_grid(2),
        prompt=blank_prompt(3, 8),
        generator=keyed_generator(1),
        block_length=2,
        walk=ancestral,
        transform=lambda logits: logits.index_fill(-1, torch.tensor([END]), 1e3),
        stop=END,
        on_step=frames.append,
    )
    assert bool((z == END).all())
    assert computed.calls == 2
    assert [frame.step for frame in frames] == [0, 1, 2, 3]
    assert torch.equal(frames[-1].z, z)


def test_without_stop_an_end_of_text_is_a_token_like_others():
    model = make_model(block_causal(4), MASKING)
    z = blockwise(
        model,
        time_grid(3),
        prompt=blank_prompt(40, 12),
        generator=keyed_generator(1),
        block_length=4,
        walk=ancestral,
    )
    first = (z == END).long().argmax(-1)
    assert any(bool((row[place:] != END).any()) for row, place in zip(z, first, strict=True) if row[place] == END)


def test_blocks_of_another_length_than_the_networks_are_refused():
    model = make_model(block_causal(4), MASKING)
    draw = partial(blockwise, times=[1.0, 0.0], prompt=blank_prompt(1, 8), generator=keyed_generator(1), walk=ancestral)
    with pytest.raises(ValueError, match="reads blocks of 4"):
        draw(model, block_length=2)
    with pytest.raises(ValueError, match="block_length: 0"):
        draw(model, block_length=0)


@pytest.mark.parametrize("kind", ["uniform", "hybrid"])
def test_without_a_mask_for_later_blocks_whole_rows_must_be_drawn(kind):
    model = Table(make_process(kind, "linear"), LENGTH, seed=2)
    with pytest.raises(ValueError, match="must be Masking"):
        draw_in_twos(model)


def test_a_recipe_of_block_diffusion_with_noise_that_replaces_tokens_can_be_drawn_from():
    """Guidance shows whole rows, which needs a mask for later blocks."""
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"source": "python-docs", "length": 8},
            "process": {"kind": "uniform"},
            "objective": {"kind": "block_diffusion", "block_length": 4},
            "network": {"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "attention": "block_causal"},
            "sampling": {"block_length": 4, "steps": 2},
        }
    )
    tokenizer = CharacterTokenizer("ab")
    model = build_model(recipe, tokenizer, device=torch.device("cpu"))
    z = build_sampler(recipe.sampling, model, seed=recipe.seed)(
        blank_prompt(3, 8), keyed_generator(1), lambda frame: None
    )
    assert not bool((z == tokenizer.mask_id).any())
    with pytest.raises(UserError, match="only masking noise is drawn in blocks"):
        build_sampler(recipe.sampling.model_copy(update={"guidance": 1.0}), model, seed=1)
