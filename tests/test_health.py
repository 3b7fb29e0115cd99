"""Verdicts on synthetic runs: every way in which a run fails is called by its name, and a good run is not."""

import json
import math
import random

import pytest

from remask.health import trivial_gap, verdict

NATS = {"uniform": 5.55, "unigram": 3.26}
BITS = {
    "uniform": 8.01,
    "unigram": 4.71,
    "byte 1-gram": 4.71,
    "byte 2-gram": 3.81,
    "byte 3-gram": 2.97,
    "byte 4-gram": 2.51,
}
TRIVIAL = {"kind": "trivial", "step": 0, "nats_per_token": NATS, "bits_per_byte": BITS}
PROSE = "the module defines a class of objects that are opened for reading, and returns none if closed. "


def falling(start=5.6, end=2.05, records=100, noise=0.03):
    """A loss that falls as a healthy run's does."""
    rng = random.Random(0)
    return [end + (start - end) * math.exp(-i / (records / 6)) + rng.gauss(0, noise) for i in range(records)]


def training(losses, every=10, **changes):
    """Train records with a warmed-up learning rate."""
    return [
        {
            "kind": "train",
            "step": (i + 1) * every,
            "loss": loss,
            "bits_per_byte": None if loss is None else loss / math.log(2),
            "learning_rate": 1e-3 * (1 - i / (2 * len(losses))),
            "gradient_norm": 0.5,
        }
        | changes
        for i, loss in enumerate(losses)
    ]


def validation(*values, every=200, stderr=0.02):
    return [
        {
            "kind": "validation",
            "step": (i + 1) * every,
            "bits_per_byte": value,
            "nats_per_token": None if value is None else value * math.log(2),
            "stderr": stderr,
            "rows": 64,
        }
        for i, value in enumerate(values)
    ]


def sample(text):
    return {"kind": "sample", "step": 1000, "text": text}


def run(losses=None, values=(3.9, 3.3, 2.95), text=PROSE, **changes):
    """A run's metrics; by default those of one that learns."""
    losses = falling() if losses is None else losses
    return [TRIVIAL, *training(losses, **changes), *validation(*values), sample(text)]


def measurement(name, value, held_out=None, stderr=0.02, **trivial):
    beside = ({} if held_out is None else {"held-out text": held_out}) | trivial
    task = "likelihood" if name in ("bits_per_byte", "nats_per_token", "perplexity") else "quality"
    return {"name": name, "value": value, "stderr": stderr, "n": 16, "trivial": beside, "task": task}


def names(judged):
    return [finding.partition(":")[0] for finding in judged.findings]


def test_a_good_run_learns_and_says_by_how_much():
    judged = verdict(run())
    assert judged.level == "learns"
    assert judged.sentence == (
        "learns: 2.95 bits/byte, 0.86 below the byte bigram (3.81), 0.02 below the byte trigram (2.97), "
        "above the byte 4-gram (2.51)"
    )
    assert judged.findings == ()


def test_a_good_run_with_good_samples_has_no_finding():
    quality = [
        measurement("entropy", 2.9, 3.0),
        measurement("repetition", 0.15, 0.12),
        measurement("longest_copy", 22, 25),
        measurement("word_share", 0.7, 0.95, **{"byte 3-gram samples": 0.4}),
        measurement("distinct_samples", 1.0, 1.0),
    ]
    judged = verdict(run(), evaluations=[measurement("bits_per_byte", 2.9), *quality])
    assert (judged.level, judged.findings) == ("learns", ())


@pytest.mark.parametrize("value", [4.72, 4.71, 4.68])
def test_a_loss_at_its_trivial_value_has_not_learned(value):
    judged = verdict(run(falling(end=3.26), (5.0, 4.8, value)))
    assert judged.level == "trivial"
    assert judged.sentence == f"has not learned: {value:.2f} bits/byte is no better than the token unigram (4.71)"
    assert names(judged) == ["loss at its trivial value"]
    assert "Usual cause: a network that ignores its input" in judged.findings[0]
    assert "Try: overfitting one batch" in judged.findings[0]


def test_a_loss_at_log_v_is_held_against_the_uniform_guess():
    judged = verdict(run(falling(start=5.9, end=5.55), (8.0, 8.0, 8.0)))
    assert judged.level == "trivial"
    assert "no better than a uniform guess (8.01)" in judged.sentence


def test_a_figure_within_its_own_error_of_the_trivial_value_has_not_beaten_it():
    metrics = run(falling(end=3.1), ())
    assert verdict([*metrics, *validation(4.5, stderr=0.05)]).level == "weak"
    assert verdict([*metrics, *validation(4.5, stderr=0.3)]).level == "trivial"


def test_tokens_whose_unigram_is_better_than_bytes_are_held_to_their_own_unigram():
    trivial = TRIVIAL | {"bits_per_byte": BITS | {"uniform": 3.85, "unigram": 3.30}}
    metrics = [trivial, *training(falling(start=7, end=5.5))]
    at_unigram = verdict([*metrics, *validation(3.5, 3.4, 3.29)])
    assert at_unigram.level == "trivial"
    assert "the token unigram (3.30)" in at_unigram.sentence
    assert verdict([*metrics, *validation(3.5, 3.4, 3.2)]).sentence.startswith("weak: 3.20 bits/byte, only 0.10")
    assert verdict([*metrics, *validation(3.5, 3.4, 2.9)]).level == "learns"


def test_a_run_between_unigram_and_bigram_is_weak():
    judged = verdict(run(values=(4.5, 4.2, 4.1)))
    assert judged.level == "weak"
    assert judged.sentence == ("weak: 4.10 bits/byte beats the token unigram (4.71) but not the byte bigram (3.81)")


def test_worse_than_uniform_is_broken():
    judged = verdict(run(values=(8.5, 9.0, 9.3)))
    assert judged.level == "broken"
    assert judged.sentence.startswith("worse than uniform: 9.30 bits/byte")
    assert "worse than uniform" in names(judged)
    assert "must be log V" in judged.findings[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_loss_that_is_not_finite_is_broken_at_its_step(bad):
    judged = verdict(run([*falling()[:50], bad, bad]))
    assert judged.level == "broken"
    assert judged.sentence.startswith("broken: non-finite numbers, the loss was not finite at step 510")
    assert "lower training.clip" in judged.findings[0]


def test_a_validation_that_is_not_finite_is_broken():
    judged = verdict(run(values=(3.9, 3.3, math.nan)))
    assert (judged.level, names(judged)) == ("broken", ["non-finite numbers"])


def test_an_evaluation_that_is_not_finite_is_broken_whatever_the_validations_said():
    figure = {"name": "bits_per_byte", "task": "likelihood", "value": None}
    assert verdict(run(), evaluations=[figure]).level == "broken"
    assert verdict(run(), evaluations=[figure, {**figure, "value": 2.9}]).level != "broken"


def test_a_gradient_that_ends_non_finite_is_broken_but_one_overflow_of_loss_scaling_is_not():
    metrics = run()
    metrics[3]["gradient_norm"] = math.inf
    assert verdict(metrics).level == "learns"
    last = max(i for i, record in enumerate(metrics) if record["kind"] == "train")
    metrics[last]["gradient_norm"] = math.nan
    judged = verdict(metrics)
    assert judged.level == "broken"
    assert "the gradient norm was not finite" in judged.sentence


def test_a_loss_that_does_not_move_is_broken():
    rng = random.Random(1)
    judged = verdict(run([5.56 + rng.gauss(0, 0.02) for _ in range(100)], (8.0, 8.0, 8.0)))
    assert judged.level == "broken"
    assert judged.sentence.startswith("broken: loss has not moved")
    assert "frozen parameters" in judged.findings[0]


def test_a_constant_loss_is_noticed_after_a_few_records():
    judged = verdict([TRIVIAL, *training([5.5483] * 4)])
    assert "loss has not moved" in names(judged)
    assert judged.level == "broken"


def test_a_plateau_of_a_run_that_has_learned_is_not_held_against_it():
    assert verdict(run([2.05 + 0.01 * (-1) ** i for i in range(100)])).level == "learns"


def test_a_plateau_at_the_unigram_is_called_trivial_rather_than_unmoved():
    judged = verdict(run([3.26 + 0.01 * (-1) ** i for i in range(100)], (4.71, 4.71, 4.71)))
    assert (judged.level, names(judged)) == ("trivial", ["loss at its trivial value"])


def test_a_loss_of_zero_is_broken_and_not_praised():
    judged = verdict(run([0.0] * 50, (0.0, 0.0)))
    assert judged.level == "broken"
    assert judged.sentence.startswith("broken: loss at zero")
    assert "sees the tokens it predicts" in judged.findings[0]


@pytest.mark.parametrize(
    ("share", "guess", "level"), [(1.0, 0.011, "learns"), (0.01, 0.011, "broken"), (1.0, math.nan, "broken")]
)
def test_a_loss_of_zero_is_earned_where_drawn_answers_are_right(share, guess, level):
    """They have seen no targets; as many right ones as a guess has say nothing."""
    answers = {"task": "arithmetic", "name": "accuracy_strict", "value": share, "stderr": 0.001}
    beside = {"majority answer": 0.009, "random guess": guess}
    judged = verdict(run(falling(end=0.0, noise=0.0), (1.0, 0.0)), evaluations=[{**answers, "trivial": beside}])
    assert judged.level == level


def test_a_gradient_of_zero_is_broken():
    judged = verdict(run([5.55] * 20, (8.01,), gradient_norm=0.0))
    assert judged.level == "broken"
    assert {"no gradient", "loss has not moved"} <= set(names(judged))


def test_a_loss_that_rises_again_has_diverged():
    losses = [*falling(records=60), *(2.1 + 0.1 * i for i in range(40))]
    judged = verdict(run(losses))
    assert "loss has diverged" in names(judged)
    assert judged.level in ("weak", "broken")
    beyond = verdict(run([*falling(records=60), *[9.0] * 40], (4.0, 9.5)))
    assert beyond.level == "broken"


def test_a_single_spike_is_not_a_divergence():
    losses = falling()
    losses[-2] = 9.0
    assert verdict(run(losses)).level == "learns"


@pytest.mark.parametrize("text", ["the the the the the the the the the the the ", "e" * 128, "_" * 128, "ab" * 60])
def test_a_sample_that_repeats_itself_has_collapsed(text):
    judged = verdict(run(text=text))
    assert judged.level == "weak"
    assert judged.sentence.startswith("weak: collapsed samples, the last sample repeats itself (2.95 bits/byte)")


def test_an_early_collapsed_sample_is_forgotten():
    assert verdict([sample("e" * 128), *run()]).level == "learns"


@pytest.mark.parametrize(
    ("figure", "sign"),
    [
        (measurement("entropy", 0.1, 3.0), "token entropy 0.10 nats"),
        (measurement("entropy", 0.1), "token entropy 0.10 nats"),
        (measurement("repetition", 0.97, 0.1), "97% of 4-grams repeated"),
        (measurement("distinct_samples", 0.1, 1.0), "only 10% of the samples differ"),
    ],
)
def test_collapsed_sample_measurements_outweigh_a_good_loss(figure, sign):
    judged = verdict(run(), evaluations=[figure])
    assert (judged.level, names(judged)) == ("weak", ["collapsed samples"])
    assert sign in judged.findings[0]


def test_text_that_repeats_itself_by_nature_has_not_collapsed():
    assert verdict(run(), evaluations=[measurement("repetition", 0.75, 0.7)]).findings == ()


def test_too_few_steps_to_tell_is_said_and_nothing_worse():
    judged = verdict([TRIVIAL, *training([5.6, 5.59, 5.5], every=1), *validation(8.15, every=3)])
    assert judged.level == "trivial"
    assert judged.sentence.startswith("has not learned: 8.15 bits/byte is worse than a uniform guess (8.01)")
    assert judged.sentence.endswith("too few steps to tell")
    assert "training on, past 100 steps" in judged.findings[-1]


def test_a_run_in_its_warm_up_is_too_young_to_tell():
    metrics = run(falling(end=4.5, records=30), (7.5,))
    for i, record in enumerate(r for r in metrics if r["kind"] == "train"):
        record["learning_rate"] = 1e-5 * (i + 1)
    assert "too few steps to tell" in names(verdict(metrics))


def test_validation_that_rises_while_training_falls_is_overfitting():
    judged = verdict(run(falling(end=1.0), (3.4, 2.9, 3.0, 3.1, 3.3)))
    assert names(judged) == ["validation rises while training falls"]
    assert judged.level == "learns"
    assert judged.sentence.endswith("validation rises while training falls")
    assert "best 2.90 at step 400" in judged.findings[0]
    assert verdict(run(falling(), (3.4, 3.0, 3.01, 3.0, 2.99))).findings == ()


def test_a_run_that_was_never_validated_is_weak_at_best():
    judged = verdict([TRIVIAL, *training(falling())])
    assert judged.level == "weak"
    assert "never validated" in judged.sentence
    assert "on training text" in judged.sentence


def test_few_words_and_copied_text_are_noted():
    evaluations = [
        measurement("word_share", 0.3, 0.95, **{"byte 3-gram samples": 0.4}),
        measurement("longest_copy", 100, 20),
    ]
    judged = verdict(run(), evaluations=evaluations)
    assert judged.level == "learns"
    assert names(judged) == ["no more words than a trigram", "copied text"]


def test_the_newest_evaluation_is_what_is_judged():
    evaluations = [measurement("bits_per_byte", 4.72), measurement("bits_per_byte", 2.80)]
    assert verdict(run(), evaluations=evaluations).sentence.startswith("learns: 2.80 bits/byte")
    assert verdict(run(), evaluations=evaluations[::-1]).level == "trivial"
    own = measurement("bits_per_byte", 2.80, **{"byte 2-gram": 2.7})
    assert verdict(run(), evaluations=[own]).level == "weak"


def test_nats_serve_where_no_bytes_are_known():
    record = {"kind": "validation", "step": 500, "nats_per_token": 2.0}
    judged = verdict([{"kind": "trivial", "step": 0, "nats_per_token": NATS}, *training(falling()), record])
    assert judged.level == "weak"
    assert judged.sentence == ("weak: 2.00 nats/token beats the token unigram (3.26); no n-gram value stands beside it")


@pytest.mark.parametrize("metrics", [[], [TRIVIAL], [sample("x")], [{"kind": "train"}], [{}]])
def test_a_run_without_figures_gets_a_verdict_all_the_same(metrics):
    judged = verdict(metrics)
    assert judged.level == "trivial"
    assert "nothing shows that it beats a trivial predictor" in judged.sentence
    assert "too few steps to tell" in names(judged)


def test_a_figure_without_trivial_values_is_not_praised():
    judged = verdict([*training(falling()), *validation(2.0, 1.9)])
    assert judged.level == "trivial"
    assert judged.sentence.startswith("cannot be judged: 1.90 bits/byte")


def test_records_read_back_from_json_give_the_same_verdict():
    metrics = run()
    again = [json.loads(json.dumps(record)) for record in metrics]
    assert verdict(iter(again)) == verdict(metrics)


@pytest.mark.parametrize("losses", [falling(), falling(end=3.26), [5.55] * 50, [math.nan] * 12, [0.0] * 30])
@pytest.mark.parametrize("values", [(), (9.5,), (4.71, 4.7), (2.9, 3.3, 3.5), (math.nan,)])
@pytest.mark.parametrize("text", ["", PROSE, "e" * 200])
def test_every_verdict_is_one_line_with_its_judgement_before_a_colon(losses, values, text):
    judged = verdict(run(losses, values, text))
    assert judged.level in ("learns", "weak", "trivial", "broken")
    assert "\n" not in judged.sentence
    assert judged.sentence.partition(":")[0] in (
        "learns",
        "weak",
        "has not learned",
        "broken",
        "worse than uniform",
    )
    for finding in judged.findings:
        assert ". Usual cause: " in finding
        assert ". Try: " in finding


def test_gaps_are_positive_where_the_trivial_value_is_beaten():
    gaps = trivial_gap(3.0, {"byte 2-gram": 3.81, "byte 5-gram": 2.2, "unigram": math.inf})
    assert gaps == {"byte 2-gram": pytest.approx(0.81), "byte 5-gram": pytest.approx(-0.8)}
