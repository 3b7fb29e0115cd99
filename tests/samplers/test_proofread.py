"""The proofreading sampler: what it keeps of confidence sampling, and what it takes back."""

import pytest
import torch

from doubles import Double, Table, make_process
from remask.randomness import keyed_generator
from remask.samplers import (
    Prompt,
    blank_prompt,
    by_chance,
    by_confidence,
    confidence,
    identity,
    proofread,
    reshape_distribution,
)
from remask.samplers.proofreading import hold_end
from remask.schedules import time_grid

pytestmark = pytest.mark.usefixtures("global_generator_untouched")
MASK, LENGTH, NEVER = 1, 12, -60.0
WORDS = [0, 2, 3]


class Judge(Double):
    """Knows a text: says [MASK] with odds `wrong` at every other visible word, and fills masks in by chance."""

    def __init__(self, text: torch.Tensor, *, wrong: float = 8.0) -> None:
        super().__init__(make_process("masking", "linear"))
        self.text, self.wrong, self.seen = text, wrong, []

    def predict(self, z, t):
        del t
        self.seen.append(z)
        logits = torch.zeros(*z.shape, 4, dtype=torch.float64)
        logits[..., MASK] = torch.where((z == self.text) | (z == MASK), NEVER, self.wrong)
        return logits


def text(seed: int = 1) -> torch.Tensor:
    return torch.tensor(WORDS)[torch.randint(3, (LENGTH,), generator=keyed_generator(seed))]


def draw(model, *, steps: int = 8, count: int = 200, prompt: Prompt | None = None, **options):
    prompt = blank_prompt(count, LENGTH) if prompt is None else prompt
    return proofread(model, time_grid(steps), prompt=prompt, generator=keyed_generator(1), **options)


@pytest.mark.parametrize("transform", [identity, reshape_distribution(top_p=1e-9)], ids=["plain", "greedy"])
def test_where_nothing_is_wrong_it_is_confidence_sampling(transform):
    """Also where the likeliest token alone is left to draw: the order is still that of the model's own sureness."""
    model = Table(make_process("masking", "cosine"), LENGTH, seed=2)
    prompt = Prompt(ids=text().repeat(50, 1), fixed=torch.rand(50, LENGTH, generator=keyed_generator(4)) < 0.3)
    common = {"times": time_grid(7), "prompt": prompt, "transform": transform}
    plain = confidence(model, generator=keyed_generator(1), **common)
    kept = proofread(model, generator=keyed_generator(1), threshold=1.0, finish=0.0, **common)
    assert torch.equal(kept, plain)
    revised = proofread(model, generator=keyed_generator(1), threshold=0.0, finish=0.0, **common)
    assert not torch.equal(revised, plain), "the test can fail"


def hits(z: torch.Tensor, truth: torch.Tensor) -> float:
    return float((z == truth).double().mean())


def test_words_that_the_model_calls_wrong_are_replaced():
    truth = text()
    blind = hits(draw(Judge(truth, wrong=NEVER)), truth)
    assert blind == pytest.approx(1 / 3, abs=0.03)
    few, many = (hits(draw(Judge(truth), steps=steps), truth) for steps in (8, 32))
    assert blind + 0.1 < few < many
    assert many > 0.9


def test_the_more_it_may_take_back_and_the_longer_it_may_finish_the_fewer_errors_are_left():
    truth = text()
    by_share = [hits(draw(Judge(truth), remask_share=share), truth) for share in (0.0, 0.1, 0.4)]
    assert by_share[0] + 0.05 < by_share[1] < by_share[2]
    by_finish = [hits(draw(Judge(truth), steps=16, finish=finish), truth) for finish in (0.0, 0.5)]
    assert by_finish[0] + 0.05 < by_finish[1]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_no_mask_is_left_even_where_everything_is_called_wrong(threshold, steps):
    z = draw(Judge(torch.full((LENGTH,), -1)), steps=steps, threshold=threshold)
    assert set(z.unique().tolist()) <= set(WORDS)


def test_what_is_taken_back_each_step_is_bounded_and_the_worst_goes_first():
    """Called wrong in order of position; nothing given, at the second of three steps."""
    states = []
    model = Judge(torch.full((LENGTH,), -1))
    plain = model.predict

    def graded(z, t):
        logits = plain(z, t)
        logits[..., MASK] += torch.where(z == MASK, 0.0, torch.arange(LENGTH) / 10)
        return logits

    model.predict = graded
    draw(model, steps=3, finish=0.6, remask_share=0.2, on_step=lambda frame: states.append(frame.z))
    # the first step fills everything in; of 12 words 2.4 may be taken back, rounded up
    for z in states[2:-1]:
        assert (z == MASK).sum(-1).tolist() == [3] * len(z)
        assert (z[:, -3:] == MASK).all()


def test_given_tokens_are_never_taken_back_and_rows_may_differ():
    fixed = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu()
    prompt = Prompt(ids=torch.full((LENGTH, LENGTH), 3), fixed=fixed)
    z = draw(Judge(torch.full((LENGTH,), -1)), prompt=prompt)
    assert (z[fixed] == 3).all()
    assert set(z.unique().tolist()) <= set(WORDS)
    whole = Prompt(ids=prompt.ids, fixed=torch.ones_like(fixed))
    assert torch.equal(draw(Judge(text()), prompt=whole), prompt.ids)


def test_a_step_is_one_call_and_none_is_made_when_all_is_settled():
    model = Judge(torch.full((LENGTH,), -1))
    frames = []
    z = draw(model, steps=10, on_step=frames.append)
    assert model.calls == 10
    assert [frame.step for frame in frames] == list(range(11))
    assert torch.equal(frames[-1].z, z)
    contented = Judge(text(), wrong=NEVER)
    draw(contented, steps=16, finish=0.5)
    assert contented.calls == 9  # eight to fill in, one to find nothing wrong


def test_chance_reveals_evenly_where_confidence_reveals_the_surest_first():
    model = Judge(text(), wrong=NEVER)
    plain = model.predict

    def surer(z, t):
        logits = plain(z, t)
        logits[:, 0, 0] = 9.0
        return logits

    model.predict = surer
    first = {}
    for order in (by_confidence, by_chance):
        frames = []
        draw(model, steps=LENGTH, count=3000, finish=0.0, order=order, on_step=frames.append)
        first[order] = (frames[1].z != MASK).double().mean(0)
    assert float(first[by_confidence][0]) > 0.99
    assert first[by_chance].tolist() == pytest.approx([1 / LENGTH] * LENGTH, abs=0.02)


def test_the_seed_decides_the_draw():
    model = Judge(text())
    grid, prompt = time_grid(8), blank_prompt(20, LENGTH)
    one, again, other = (proofread(model, grid, prompt=prompt, generator=keyed_generator(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_grid_is_held_at_its_end():
    assert hold_end(time_grid(4), 0.0) == time_grid(4)
    assert hold_end(time_grid(4), 0.5) == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert hold_end(time_grid(8), 0.25) == pytest.approx([1.0, 0.875, 0.625, 0.5, 0.375, 0.125, 0.0, 0.0, 0.0])
    assert hold_end(time_grid(2), 0.99) == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"finish: 1\.0 was given"):
        hold_end(time_grid(4), 1.0)
