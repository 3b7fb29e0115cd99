"""Figures of thoughts by time: exact where the posterior is known, and nothing for networks that know nothing."""

from dataclasses import dataclass, replace
from math import erf, sqrt

import numpy as np
import pytest
import torch

from doubles import full_batch
from remask.evaluation.other_questions import other_questions, partners_of
from remask.evaluation.thoughts import row_thoughts, thought_measurements, thought_sentences
from remask.gaussian import CosineNoise
from remask.networks.thought.network import hidden
from remask.objectives.thought import squared_error
from remask.randomness import keyed_generator
from thoughts import (
    EOS,
    MASK,
    TOKENIZER,
    Knowing,
    V,
    question_rows,
    random_law,
    random_table,
    thought_model,
    thought_network,
    thought_objective,
)

ONE, OTHER = 2, 5


def figures(network, batches, *, levels=5, draws=4, eos_id=None, at_once=32, **objective):
    """name → its measurements, by level where it has some."""
    model = thought_model(network, thought_objective(**{"memory": 0.0, "t_min": 0.01, **objective}))
    sums = row_thoughts(model, batches, levels=levels, draws=draws, seed=1, eos_id=eos_id, at_once=at_once)
    found = {}
    for figure in thought_measurements(sums, protocol={}, identity="rows"):
        found.setdefault(figure.name, []).append(figure)
    return found


def drawn_texts(law, count):
    index = torch.multinomial(law.flatten(), count, replacement=True, generator=keyed_generator(5, "texts"))
    return full_batch(torch.stack([index // V, index % V], 1))


@dataclass(eq=False)
class Saying(torch.nn.Module):
    """A network whose words are a function of z and t, on a table."""

    say: object
    table: torch.Tensor

    def __post_init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    @property
    def codec(self):
        return self

    @property
    def width(self):
        return self.table.shape[1]

    def vectors(self):
        return self.table

    def forward(self, z, t, *, ids, noisy, segments, before, positions):
        return self.say(z, t[:, None, None].to(z.dtype), ids)[positions]


def two_signs():
    """Two tokens at ±1, all others far off."""
    table = torch.full((V, 1), 1e9, dtype=torch.float64)
    table[ONE], table[OTHER] = 1.0, -1.0
    law = torch.zeros(V, V, dtype=torch.float64)
    law[torch.tensor([[ONE], [OTHER]]), torch.tensor([ONE, OTHER])] = 0.25
    return law, table


def filtered(z, t, ids):
    alpha, sigma = CosineNoise().coefficients(t)
    return alpha * z / (alpha.square() + sigma.square())


def test_who_says_zero_is_judged_as_who_says_zero_and_has_no_skill_at_any_time():
    table = random_table(3)
    zero = Saying(lambda z, t, ids: torch.zeros_like(z), table)
    found = figures(zero, [drawn_texts(random_law(1, 4, 7), 64)], vectors=True, loss=squared_error)
    for error, skill in zip(found["clean_error"], found["skill"], strict=True):
        assert error.value == pytest.approx(error.trivial["predict zero"]) == pytest.approx(1.0)
        assert error.value > error.trivial["linear filter"]
        assert skill.value == pytest.approx(skill.trivial["predict zero"])
        assert skill.value < 0.0
    (line,) = thought_sentences(found["skill"])
    assert line.startswith("NO SKILL over a linear filter, which has 0, in 5 of 5 ranges of t: ")


def test_the_best_multiple_of_the_noisy_vector_has_a_skill_of_zero():
    filter_ = Saying(filtered, random_table(3))
    law = torch.zeros(V, V, dtype=torch.float64)
    law[1:, 1:] = 1.0
    found = figures(filter_, [drawn_texts(law / law.sum(), 3000)], vectors=True, loss=squared_error)
    for skill in found["skill"]:
        assert abs(skill.value) < 4 * skill.stderr + 1e-9
        assert skill.stderr < 0.03


def test_the_true_posterior_of_two_signs_names_as_many_tokens_as_the_normal_law_says_and_gains_nothing_by_rounding():
    law, table = two_signs()
    found = figures(Knowing(law, table), [drawn_texts(law, 2000)], levels=4, draws=8)
    for figure, gain in zip(found["token_accuracy"], found["rounding_gain"], strict=True):
        low, high = figure.protocol["t_low"], figure.protocol["t_high"]
        t = torch.linspace(low, high, 2001, dtype=torch.float64)
        alpha, sigma = CosineNoise().coefficients(t)
        exact = np.mean([0.5 * (1 + erf(a / s / sqrt(2))) for a, s in zip(alpha.tolist(), sigma.tolist(), strict=True)])
        assert figure.value == pytest.approx(exact, abs=4 * (figure.stderr or 0.0) + 1e-4)
        assert gain.value == 0.0
    assert all(skill.value > 0.0 for skill in found["skill"])  # tokens are not Gaussian
    assert found["decode_oracle"][0].value == 1.0


def test_a_posterior_that_reads_its_neighbour_gains_over_rounding_and_over_the_filter():
    law, table = random_law(1, 4, 7), random_table(2)
    found = figures(Knowing(law, table), [drawn_texts(law, 500)])
    assert all(skill.value > 2 * skill.stderr for skill in found["skill"])
    assert found["rounding_gain"][2].value > 4 * found["rounding_gain"][2].stderr
    assert thought_sentences(found["skill"]) == []


def test_clean_vectors_that_are_not_read_as_their_tokens_are_told():
    constant = Saying(lambda z, t, ids: z.new_zeros(*z.shape[:2], V), random_table(2))
    (oracle,) = figures(constant, [drawn_texts(random_law(1, 4, 7), 64)])["decode_oracle"]
    assert oracle.value < 0.7
    assert oracle.trivial["nearest vector"] == 1.0
    assert "CLEAN VECTORS ARE NOT READ" in thought_sentences([oracle])[0]


# ── the question ───────────────────────────────────────────────────────────────────────────────────────────────


QUESTIONS = question_rows(("1=?11", "5=?55", "8=?88", "3=?33"))


def test_a_network_that_ignores_the_question_has_a_gap_of_exactly_zero():
    network = thought_network(remembers=False)
    network.given = hidden(MASK)
    (gap,) = figures(network, [QUESTIONS], levels=2, draws=1)["question_gap"]
    assert gap.value == 0.0
    assert "NO USE OF THE QUESTION" in thought_sentences([gap])[0]


def test_a_network_that_answers_by_the_question_has_a_gap():
    def told(z, t, ids):  # what it thinks of first is the question's first token
        return 3.0 * torch.nn.functional.one_hot(ids[:, :1], V).to(z.dtype).expand(-1, ids.shape[1], -1)

    network = Saying(told, random_table(2).float())
    (gap,) = figures(network, [QUESTIONS], levels=2, draws=1)["question_gap"]
    assert gap.value == pytest.approx(3.0 * 2 / 7)  # two of seven denoised places, three nats each
    assert gap.value - 1.96 * gap.stderr >= 0.0
    assert gap.trivial == {"unread question": 0.0}


def test_rows_without_a_question_have_no_gap_and_those_of_one_question_neither():
    network = thought_network(remembers=False)
    bare = replace(QUESTIONS, targets=torch.ones_like(QUESTIONS.targets))
    same = question_rows(("1=?11", "1=?22"))
    for rows in (bare, same):
        assert "question_gap" not in figures(network, [rows], levels=1, draws=1)


def test_another_question_stands_before_the_same_response():
    rows = question_rows(("1=?11", "55=?2", "88=?4", "3=?33"), length=8)
    (other,) = other_questions([rows])
    texts = [TOKENIZER.decode(ids[part > 0]) for ids, part in zip(other.ids, other.segments, strict=True)]
    own = [TOKENIZER.decode(ids) for ids in rows.ids]
    assert [text[: text.index("?") + 1] for text in texts] == ["3=?", "88=?", "55=?", "1=?"]
    assert [text[text.index("?") :] for text in texts] == [text[text.index("?") :] for text in own]
    assert torch.equal(other.ids[other.targets], rows.ids[rows.targets])


def test_partners_are_unlike_and_near_in_length():
    assert partners_of([(1, 2), (1, 2), (3, 4), (5,)]) == [2, 2, 1, 0]
    assert partners_of([(1,), ()]) is None
    assert partners_of([(1,), (1,)]) is None


# ── the memory ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_memory_that_is_not_used_gains_nothing_and_one_that_is_not_there_is_not_measured():
    fresh = thought_network()  # its memory begins at zero
    (gain,) = figures(fresh, [QUESTIONS], levels=2, draws=1, memory=0.5)["memory_gain"]
    assert gain.value == pytest.approx(0.0, abs=1e-7)
    assert "memory_gain" not in figures(fresh, [QUESTIONS], levels=2, draws=1)


# ── rows that are filled up, and rows that are seen apart ──────────────────────────────────────────────────────


def test_who_knows_only_where_rows_are_filled_up_has_no_skill():
    table = random_table(16).float()

    def told(z, t, ids):
        ends = (ids == EOS).long()
        behind = (ends > 0) & (ends.cumsum(-1) > 1)
        return torch.where(behind[..., None], table[ids], filtered(z, t, ids))

    network, rows = Saying(told, table), question_rows(length=16)
    judged = {"loss": squared_error, "vectors": True, "draws": 64}
    everywhere = figures(network, [rows], **judged)["skill"]
    assert all(figure.value > 0.5 for figure in everywhere)
    for figure in figures(network, [rows], eos_id=EOS, **judged)["skill"]:
        assert figure.value == pytest.approx(0.0, abs=0.1)


def test_tokens_behind_the_end_of_a_response_are_not_counted():
    whole, ended = (figures(thought_network(), [QUESTIONS], eos_id=eos)["token_accuracy"][0] for eos in (None, EOS))
    assert whole.n == ended.n == 4
    model = thought_model(thought_network(), thought_objective(memory=0.0, t_min=0.01))
    sums = row_thoughts(model, [QUESTIONS], levels=2, draws=1, seed=1, eos_id=EOS)
    assert sums.tokens.tolist() == [3.0] * 4  # "=?11" asks up to "?"; two digits and the first end of text


def test_rows_that_are_seen_a_few_at_a_time_have_the_same_noise_and_figures():
    network = thought_network(remembers=False)
    together, apart = (figures(network, [QUESTIONS], levels=2, draws=2, at_once=most) for most in (32, 3))
    assert list(together) == list(apart)
    for name, found in together.items():
        values = [figure.value for figure in apart[name]]
        assert values == pytest.approx([figure.value for figure in found], rel=1e-4, abs=1e-6), name


def test_noise_depends_on_the_seed_alone():
    network = thought_network(remembers=False)
    runs = [figures(network, [QUESTIONS], levels=2, draws=1) for _ in range(2)]
    assert [f.value for f in runs[0]["clean_error"]] == [f.value for f in runs[1]["clean_error"]]
