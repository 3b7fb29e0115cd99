"""Thoughts that are drawn, and answers that are written behind them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from exact import chi_squared
from remask.config.build import build_thinker
from remask.config.schema import SamplingSpec
from remask.errors import UserError
from remask.gaussian import NOISE
from remask.generation import pair_prompt
from remask.objectives.thought import squared_error
from remask.randomness import keyed_generator
from remask.reasoning import ThoughtDenoiser, draw_thought, exchanged, random_thought, write_answers
from remask.samplers import reshape_distribution
from remask.samplers.base import blank_prompt
from remask.samplers.gaussian import ddim, ddpm, heun
from remask.schedules import time_grid
from thoughts import (
    ANSWERS,
    EOS,
    MASK,
    Knowing,
    question_rows,
    random_law,
    random_table,
    shaken,
    thought_model,
    thought_network,
)
from thoughts import thought_objective as objective

TOKENS = (1, 4, 7)
AS_IS = reshape_distribution(temperature=1.0, top_p=1.0)


def think(model, prompt, *, walk=ddim, steps=4, guidance=0.0, seed=1, **rest):
    return draw_thought(
        model,
        prompt,
        walk=walk,
        times=time_grid(steps),
        guidance=guidance,
        transform=AS_IS,
        generator=keyed_generator(seed, "draw"),
        **rest,
    )


@pytest.mark.parametrize(("walk", "steps"), [(ddpm, 60), (ddim, 60), (heun, 25)])
def test_with_the_true_posterior_a_sampler_draws_the_law(walk, steps):
    law, table = random_law(*TOKENS), random_table(4).float()
    model = thought_model(Knowing(law.float(), table), objective(memory=0.0))
    ids = think(model, blank_prompt(1500, 2), walk=walk, steps=steps).ids
    outcomes = np.array([(one, other) for one in TOKENS for other in TOKENS])
    p = law[outcomes[:, 0], outcomes[:, 1]].numpy()
    assert chi_squared(ids.numpy(), outcomes, p) > 1e-3
    assert chi_squared(ids.numpy(), outcomes, p[::-1].copy()) < 1e-9


def test_noise_that_is_predicted_right_draws_the_law_although_nothing_is_left_of_the_signal_at_the_end():
    law, table = random_law(*TOKENS), random_table(4).float()

    class Speaking(Knowing):
        def forward(self, z, t, *, positions, **rest):
            p = super().forward(z, t, positions=positions, **rest).softmax(-1)
            return self.process.noise_of_clean(z, (p @ self.table).view(z.shape), t)[positions]

    of = objective(vectors=True, loss=squared_error, memory=0.0, prediction=NOISE)
    model = thought_model(Speaking(law.float(), table), of)
    draw, frames = build_thinker(SamplingSpec(sampler="ddim", steps=60), model), []
    thought = draw(blank_prompt(1500, 2), keyed_generator(1, "draw"), frames.append)
    assert frames[0].t == of.diffusion.t_max < 1.0
    assert float(thought.vectors.abs().max()) < 1.1 * float(table.abs().max())
    outcomes = np.array([(one, other) for one in TOKENS for other in TOKENS])
    p = law[outcomes[:, 0], outcomes[:, 1]].numpy()
    assert chi_squared(thought.ids.numpy(), outcomes, p) > 1e-3


def test_a_thought_keeps_its_question_and_shows_its_tokens_at_every_step():
    model = thought_model(shaken(thought_network()), objective())
    prompt = pair_prompt(question_rows())
    frames = []
    thought = think(model, prompt, steps=3, on_step=frames.append)
    assert [(frame.step, round(frame.t, 3)) for frame in frames] == [(0, 1.0), (1, 0.667), (2, 0.333), (3, 0.0)]
    assert bool((frames[0].z[~prompt.fixed] == MASK).all())
    assert bool((frames[-1].z == thought.ids).all())
    for frame in frames:
        assert bool((frame.z == prompt.ids)[prompt.fixed].all())
    assert MASK not in thought.ids
    assert bool((think(model, prompt, steps=3).ids == thought.ids).all())


def test_guidance_of_nothing_changes_nothing_and_guidance_does():
    model, prompt = thought_model(shaken(thought_network()), objective()), pair_prompt(question_rows())
    z = torch.randn(3, 10, 4, generator=keyed_generator(1, "z"))
    t = torch.full((3,), 0.5, dtype=torch.float64)

    def clean(guidance):
        denoiser = ThoughtDenoiser(model=model, prompt=prompt, guidance=guidance, transform=AS_IS)
        with torch.no_grad():
            return denoiser.clean(z, t, before=None)

    torch.testing.assert_close(clean(1e-9), clean(0.0), atol=1e-5, rtol=1e-5)
    assert float((clean(2.0) - clean(0.0)).abs().max()) > 1e-3
    unasked = thought_model(model.network, model.objective)
    blank = blank_prompt(3, 10)
    denoisers = [ThoughtDenoiser(model=unasked, prompt=blank, guidance=g, transform=AS_IS) for g in (0.0, 2.0)]
    with torch.no_grad():
        one, other = (denoiser.clean(z, t, before=None) for denoiser in denoisers)
    torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_a_network_without_memory_is_told_of_no_estimate():
    law, table = random_law(*TOKENS), random_table(4).float()

    class Forgetful(Knowing):
        def forward(self, *arguments, before, **rest):
            assert before is None
            return super().forward(*arguments, before=before, **rest)

    model = thought_model(Forgetful(law.float(), table), objective(memory=0.0))
    assert think(model, blank_prompt(2, 2), steps=3).ids.shape == (2, 2)


def test_a_network_with_memory_is_told_of_the_last_estimate_and_of_no_time_that_it_has_not_learned():
    law, table = random_law(*TOKENS), random_table(4).float()
    told, estimates = [], []

    class Watched(Knowing):
        def forward(self, z, t, *, before, **rest):
            told.append((t.tolist(), before))
            said = super().forward(z, t, before=before, **rest)
            estimates.append(said.softmax(-1) @ table)
            return said

    model = thought_model(Watched(law.float(), table), objective(t_min=0.3))
    think(model, blank_prompt(2, 2), steps=5)
    assert [times for times, _ in told] == [[pytest.approx(t)] * 2 for t in (1.0, 0.8, 0.6, 0.4, 0.3)]
    assert told[0][1] is None
    for (_, before), estimate in zip(told[1:], estimates, strict=False):
        torch.testing.assert_close(before.flatten(0, 1), estimate, atol=1e-5, rtol=1e-5)


def test_guidance_raises_what_the_question_makes_likelier():
    network = shaken(thought_network())
    model, prompt = thought_model(network, objective()), pair_prompt(question_rows())
    z = torch.randn(3, 10, 4, generator=keyed_generator(1, "z"))
    t, free = torch.full((3,), 0.5, dtype=torch.float64), ~prompt.fixed
    denoiser = ThoughtDenoiser(model=model, prompt=prompt, guidance=1.5, transform=AS_IS)
    with torch.no_grad():
        found = denoiser.clean(z, t, before=None)[free]
        given, dropped = (
            network(z, t, ids=ids, noisy=free, segments=torch.ones_like(ids), positions=free).double()
            for ids in (prompt.ids, prompt.ids.masked_fill(prompt.fixed, MASK))
        )
        p = [said[:, torch.arange(said.shape[1]) != MASK].softmax(-1) for said in (given, dropped)]
        due = p[0] ** 2.5 / p[1] ** 1.5
        kept = network.codec.vectors()[torch.arange(given.shape[1]) != MASK].double()
    torch.testing.assert_close(found.double(), due / due.sum(-1, keepdim=True) @ kept, atol=1e-5, rtol=1e-4)


def test_answers_are_written_greedily_up_to_their_ends():
    model = thought_model(shaken(thought_network()), objective(answers=ANSWERS))
    prompt = pair_prompt(question_rows())
    thought = think(model, prompt)
    answers = write_answers(model, prompt, thought, length=5)
    assert answers.shape[0] == 3
    assert answers.shape[1] <= 5
    assert MASK not in answers
    for row in answers.tolist():
        if EOS in row:
            assert set(row[row.index(EOS) :]) == {EOS}
    # each token is the likeliest behind those before it
    network = model.network
    wanted = torch.ones_like(answers, dtype=torch.bool)
    with torch.no_grad():
        logits = network(
            thought.vectors,
            torch.full((3,), thought.t),
            ids=prompt.ids,
            noisy=~prompt.fixed,
            segments=torch.ones_like(prompt.ids),
            positions=~prompt.fixed,
            answer=answers,
            wanted=wanted,
        )
    likeliest = model.objective.readout.spoken(logits).argmax(-1).view(answers.shape)
    ended = (answers == EOS).cumsum(-1) - (answers == EOS).long() > 0
    assert bool((likeliest == answers)[~ended].all())


def test_an_answer_can_be_written_behind_noise_and_behind_another_thought():
    model = thought_model(shaken(thought_network()), objective(answers=ANSWERS))
    prompt = pair_prompt(question_rows())
    thought = think(model, prompt)
    other, noise = exchanged(thought), random_thought(model, prompt, generator=keyed_generator(1, "noise"))
    assert bool((other.vectors[1] == thought.vectors[0]).all())
    assert bool((noise.ids == prompt.over(torch.full_like(prompt.ids, MASK))).all())
    assert float(noise.vectors.std()) == pytest.approx(1.0, abs=0.2)
    own = write_answers(model, prompt, thought, length=3)
    for given in (other, noise):
        assert not torch.equal(write_answers(model, prompt, given, length=3), own)


def test_a_model_that_was_not_taught_to_write_says_so():
    model, prompt = thought_model(thought_network(), objective()), pair_prompt(question_rows())
    with pytest.raises(UserError, match="answer_weight"):
        write_answers(model, prompt, think(model, prompt, steps=1), length=3)


def test_a_model_of_tokens_draws_no_thought():
    from tiny import BOUND, PROCESS, tiny_network

    model = replace(
        thought_model(thought_network(), objective()), network=tiny_network(), objective=BOUND, process=PROCESS
    )
    with pytest.raises(UserError, match="draws no thoughts"):
        random_thought(model, blank_prompt(1, 4), generator=keyed_generator(1))
