"""One behaviour suite over every sampler: prompts, seeds, frames, no noise left."""

from functools import partial

import pytest
import torch

from doubles import KINDS, LeftToRight, Table, make_process
from remask.randomness import keyed_generator
from remask.samplers import (
    Guided,
    Prompt,
    analytic,
    ancestral,
    blank_prompt,
    by_sureness,
    confidence,
    entropy,
    entropy_bounded,
    left_to_right,
    margin,
    predictor_corrector,
    remdm,
    rescale,
    reshape_distribution,
    tau_leaping,
)
from remask.schedules import time_grid

pytestmark = pytest.mark.usefixtures("global_generator_untouched")
LENGTH = 5


def guided(model, times, *, prompt, **rest):
    """Ancestral sampling of a model that gives the prompt more weight."""
    return ancestral(Guided(model, prompt=prompt, scale=1.5), times, prompt=prompt, **rest)


WALKS = {
    "ancestral": ancestral,
    "analytic": analytic,
    "tau_leaping": tau_leaping,
    "predictor_corrector": partial(predictor_corrector, corrector_steps=2, share=0.4),
    "confidence": confidence,
    "margin": margin,
    "entropy": entropy,
    "remdm rescale": partial(remdm, strategy=rescale(0.5)),
    "remdm by sureness": partial(remdm, strategy=by_sureness(rescale(1.0))),
    "guided": guided,
}
FOR_ANY_NOISE = ["ancestral", "analytic", "tau_leaping", "predictor_corrector"]


def make_sampler(name: str):
    """(draw, number of steps, or None where the sampler chooses) of each sampler over a fixed wrong network."""
    if name == "left_to_right":
        return partial(left_to_right, LeftToRight(make_process("masking", "linear"), seed=2)), LENGTH
    walk, kind = name.split(" of ")
    model = Table(make_process(kind, "cosine"), LENGTH, seed=2)
    if walk == "entropy_bounded":
        return partial(entropy_bounded, model, budget=0.8), None
    return partial(WALKS[walk], model, time_grid(6)), 6


ALL = [
    *(f"{walk} of {kind}" for walk in FOR_ANY_NOISE for kind in KINDS),
    *(f"{walk} of masking" for walk in WALKS if walk not in FOR_ANY_NOISE),
    "entropy_bounded of masking",
    "left_to_right",
]
each_sampler = pytest.mark.parametrize("name", ALL)


@each_sampler
def test_no_mask_is_left_at_the_end(name):
    draw, _ = make_sampler(name)
    z = draw(prompt=blank_prompt(200, LENGTH), generator=keyed_generator(1))
    assert z.shape == (200, LENGTH)
    assert z.dtype == torch.int64
    assert set(z.unique().tolist()) == {0, 2, 3}


@each_sampler
def test_the_seed_decides_the_draw(name):
    draw, _ = make_sampler(name)
    one, again, other = (draw(prompt=blank_prompt(20, LENGTH), generator=keyed_generator(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


PROMPTS = {
    "prefix": [True, True, False, False, False],
    "infilling": [True, False, False, False, True],
    "every other": [True, False, True, False, True],
    "all": [True] * 5,
}


@each_sampler
@pytest.mark.parametrize("gap", PROMPTS)
def test_fixed_positions_never_change_and_the_rest_is_drawn(name, gap):
    draw, _ = make_sampler(name)
    fixed = torch.tensor(PROMPTS[gap]).repeat(100, 1)
    ids = torch.tensor([0, 2, 3])[torch.randint(3, (100, LENGTH), generator=keyed_generator(3))]
    frames = []
    z = draw(prompt=Prompt(ids=ids, fixed=fixed), generator=keyed_generator(1), on_step=frames.append)
    for frame in frames:
        assert torch.equal(frame.z[fixed], ids[fixed])
    assert torch.equal(z[fixed], ids[fixed])
    if gap != "all":
        assert set(z[~fixed].tolist()) == {0, 2, 3}


@each_sampler
def test_rows_may_have_different_gaps(name):
    draw, _ = make_sampler(name)
    fixed = torch.zeros(LENGTH, LENGTH, dtype=torch.bool)
    fixed[torch.triu_indices(LENGTH, LENGTH)[0], torch.triu_indices(LENGTH, LENGTH)[1]] = True
    ids = torch.full((LENGTH, LENGTH), 3)
    z = draw(prompt=Prompt(ids=ids, fixed=fixed), generator=keyed_generator(1))
    assert (z[fixed] == 3).all()
    assert not (z == 1).any()


@each_sampler
def test_frames_run_from_the_start_to_the_result(name):
    draw, fixed_steps = make_sampler(name)
    frames = []
    z = draw(prompt=blank_prompt(4, LENGTH), generator=keyed_generator(1), on_step=frames.append)
    steps = fixed_steps or len(frames) - 1
    assert [frame.step for frame in frames] == list(range(steps + 1))
    times = [frame.t for frame in frames]
    assert (times[0], times[-1]) == (1, 0)
    if fixed_steps:
        assert times == pytest.approx([1 - k / steps for k in range(steps + 1)])
    else:
        assert times == sorted(times, reverse=True)
    assert torch.equal(frames[-1].z, z)
    assert not torch.equal(frames[0].z, z)


@each_sampler
def test_watching_changes_nothing(name):
    draw, _ = make_sampler(name)
    plain = draw(prompt=blank_prompt(10, LENGTH), generator=keyed_generator(1))
    watched = draw(
        prompt=blank_prompt(10, LENGTH),
        generator=keyed_generator(1),
        on_step=lambda frame: frame.z.zero_() if frame.step < 0 else None,
    )
    assert torch.equal(plain, watched)


@each_sampler
@pytest.mark.parametrize("shape", [{"temperature": 0.7}, {"top_p": 0.6}, {"temperature": 1.3, "top_p": 0.9}])
def test_the_mask_takes_no_share_of_a_nucleus(name, shape):
    """The mask's logit is never trained, so it may stand anywhere: it must not crowd words out."""
    draw, _ = make_sampler(name)
    model = draw.args[0]
    plain = model.predict
    prompt = blank_prompt(50, LENGTH)
    expected = draw(prompt=prompt, generator=keyed_generator(1), transform=reshape_distribution(**shape))

    def lifted(z, t):
        logits = plain(z, t)
        logits[..., 1] = 30.0
        return logits

    model.predict = lifted
    assert torch.equal(
        draw(prompt=prompt, generator=keyed_generator(1), transform=reshape_distribution(**shape)), expected
    )


@each_sampler
def test_a_low_temperature_gives_the_likeliest_tokens(name):
    draw, _ = make_sampler(name)
    cold = draw(
        prompt=blank_prompt(300, LENGTH), generator=keyed_generator(1), transform=reshape_distribution(temperature=1e-3)
    )
    warm = draw(prompt=blank_prompt(300, LENGTH), generator=keyed_generator(1))
    assert len(cold.unique(dim=0)) < len(warm.unique(dim=0)) * 0.75  # noise, and the order of places, stay random
    if name == "left_to_right":
        assert len(cold.unique(dim=0)) == 1


@each_sampler
def test_sampling_leaves_no_gradient_behind(name):
    draw, _ = make_sampler(name)
    model = draw.args[0]
    plain = model.predict
    model.predict = lambda z, t: plain(z, t).requires_grad_()
    assert not draw(prompt=blank_prompt(3, LENGTH), generator=keyed_generator(1)).requires_grad
