"""`compare_runs`: what is refused, what is flagged, what is said and how sure it is."""

import json
import math

import pytest
import scipy.stats

from comparison.recorded import EXACT, LIKELIHOOD, SAMPLED, TRIVIAL, Home, rows
from remask.comparison import better, compare_runs, refuse_unfair
from remask.comparison.text import comparison_lines
from remask.errors import UserError
from remask.evaluation.measurement import Examples


@pytest.fixture
def home():
    return Home()


def compare(home, *runs, **options):
    return compare_runs(home.registry, [home.registry.get(run) for run in runs], **options)


def two(home, first=2.5, second=2.7, *, protocols=(LIKELIHOOD, LIKELIHOOD), facts=({}, {}), **options):
    """Runs a and b with a figure each, compared."""
    for name, value, protocol, own in zip(("a", "b"), (first, second), protocols, facts, strict=True):
        home.run(name, **own)
        home.judge(name, value, protocol=protocol)
    return compare(home, "a", "b", **options)


def figure(comparison, name="bits_per_byte"):
    (found,) = [each for each in comparison.to_json()["figures"] if each["name"] == name]
    return found


# ── refused ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "first", "second", "said"),
    [
        ("data", "da7a", "0ther", "the text: a da7a, b 0ther"),
        ("split", "validation", "test", "the split: a validation, b test"),
        ("rows", 200, 100, "rows judged: a 200, b 100"),
        ("lossless_tokenizer", True, False, "lossless tokenizer: a yes, b no"),
        ("targets", "responses", "everything", "targets: a responses, b everything"),
        ("judge", "ar_1", "ar_2", "the judge: a ar_1, b ar_2"),
        ("something_new", 1, 2, "something new: a 1, b 2"),
    ],
)
def test_figures_of_other_things_are_refused_and_both_values_are_named(home, key, first, second, said):
    with pytest.raises(UserError, match="cannot be compared") as refusal:
        two(home, protocols=(LIKELIHOOD | {key: first}, LIKELIHOOD | {key: second}))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_key_that_only_one_protocol_has_keeps_figures_apart(home):
    with pytest.raises(UserError, match="something new: a 1, b not said"):
        two(home, protocols=(LIKELIHOOD | {"something_new": 1}, LIKELIHOOD))


def test_the_seed_of_an_evaluation_decides_nothing(home):
    assert figure(two(home, protocols=(LIKELIHOOD, LIKELIHOOD | {"seed": 77})))["comparable"]


def test_nats_per_token_of_other_tokenizers_are_refused(home):
    for name, tokenizer in (("a", "70ken"), ("b", "by7e")):
        home.run(name, tokenizer_hash=tokenizer)
        home.judge(name, 5.0, name="nats_per_token", unit="nats/token", protocol=LIKELIHOOD | {"tokenizer": tokenizer})
    with pytest.raises(UserError, match="the tokenizer: a 70ken, b by7e"):
        compare(home, "a", "b")


def test_bits_per_byte_of_other_tokenizers_on_the_same_text_are_compared_and_flagged(home):
    other = LIKELIHOOD | {"tokenizer": "by7e", "rows": 900}
    comparison = two(home, protocols=(LIKELIHOOD, other), facts=({}, {"tokenizer_hash": "by7e", "tokenizer": "byte"}))
    assert figure(comparison)["comparable"]
    flags = comparison.to_json()["flags"]
    assert "different tokenizers: a bpe 4096, b byte" in flags
    assert "rows judged: a 200, b 900" in flags
    assert not any(flag.startswith("the tokenizer:") for flag in flags)  # once is enough


def test_bits_per_byte_of_other_tokenizers_on_other_text_are_refused(home):
    other = LIKELIHOOD | {"tokenizer": "by7e"}
    for name, protocol, beside in (("a", LIKELIHOOD, 4.70), ("b", other, 4.71)):
        home.run(name)
        home.judge(name, 2.5, protocol=protocol, trivial=TRIVIAL | {"byte 1-gram": beside})
    with pytest.raises(UserError, match="the tokenizer: a 70ken, b by7e"):
        compare(home, "a", "b")


def test_equal_cuts_with_other_numbers_of_rows_are_never_the_same_text(home):
    with pytest.raises(UserError, match="rows judged: a 200, b 100"):
        two(home, protocols=(LIKELIHOOD, LIKELIHOOD | {"rows": 100}))  # though byte frequencies give one value


def test_times_of_other_machines_are_refused(home):
    for name, machine in (("a", "box (Linux)"), ("b", "laptop (macOS)")):
        home.run(name)
        home.judge(name, 1.0, name="seconds_per_sample", unit="s", task="steps", protocol=SAMPLED, machine=machine)
    with pytest.raises(UserError, match=r"the machine: a box \(Linux\), None, b laptop"):
        compare(home, "a", "b")


def test_of_three_runs_the_odd_one_is_left_out_and_named(home):
    for name, split in (("a", "validation"), ("b", "validation"), ("c", "test")):
        home.run(name)
        home.judge(name, 2.5, protocol=LIKELIHOOD | {"split": split})
    comparison = compare(home, "a", "b", "c")
    together, apart = comparison.to_json()["figures"]
    assert (together["comparable"], together["arms"], together["values"][2]) == (True, ["a", "b"], None)
    assert (apart["comparable"], apart["differs"][0]["what"]) == (False, "the split")
    assert apart["differs"][0]["values"] == ["validation", "validation", "test"]
    assert apart["differences"] == []
    assert not any(value["best"] for value in apart["values"])
    assert "c cannot be compared in bits_per_byte" in comparison.verdict
    assert any("the split: a validation, b validation, c test" in line for line in comparison_lines(comparison))


def test_the_verdict_is_about_the_figure_of_most_arms_and_names_who_has_it_elsewhere(home):
    other = LIKELIHOOD | {"split": "test"}
    for name, value in (("a", 2.5), ("b", 2.6), ("c", 2.0)):
        home.run(name)
        home.judge(name, value, protocol=LIKELIHOOD if name != "c" else other)
    home.judge("b", 2.5, protocol=other)
    assert "c can be compared in bits_per_byte of another protocol alone" in compare(home, "a", "b", "c").verdict
    home.judge("a", 2.4, protocol=other)
    verdict = compare(home, "a", "b", "c").verdict
    assert verdict.startswith("c is better than a and b (3 pairs")
    assert "compared in" not in verdict


@pytest.mark.parametrize(
    ("runs", "message"),
    [(["a"], "two runs or more"), (["a", "a"], "run a is given twice"), (["a", "empty"], "remask evaluate empty")],
)
def test_what_is_no_comparison_is_said(home, runs, message):
    home.run("a")
    home.judge("a", 2.5)
    home.run("empty")
    with pytest.raises(UserError, match=message):
        compare(home, *runs)


def test_an_unknown_metric_or_task_names_the_nearest(home):
    two(home)
    with pytest.raises(UserError, match="did you mean 'bits_per_byte'"):
        compare(home, "a", "b", metrics=["bits_per_bite"])
    with pytest.raises(UserError, match="did you mean 'likelihood'"):
        compare(home, "a", "b", tasks=["likelyhood"])
    with pytest.raises(UserError, match="above 0 and below 1"):
        compare(home, "a", "b", level=95)


def test_a_figure_that_was_not_finite_is_none(home):
    home.run("a")
    home.judge("a", None)
    home.run("b")
    home.judge("b", 2.0)
    with pytest.raises(UserError, match=r"no figure in common.*bits_per_byte of a is not finite"):
        compare(home, "a", "b")


# ── flagged ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"parameters": 2_000_000, "active_parameters": 2_000_000},
            "parameters differ: a 1,000,000, b 2,000,000 (2 times)",
        ),
        ({"parameters": 8_000_000}, "parameters differ: a 1,000,000, b 8,000,000 (8 times)"),
        ({"tokens_seen": 500_000}, "tokens trained on differ: a 1,000,000, b 500,000 (2 times)"),
        ({"train_tokens": 250_000}, "epochs differ: a 2, b 4 (2 times)"),
        ({"flops": 1.2e13}, "floating-point operations of training differ: a 6e+12, b 1.2e+13 (2 times)"),
        ({"flops": None}, "floating-point operations of training: not known of b"),
        ({"data_hash": "0ther", "data": "wiki"}, "trained on different text: a python-docs, b wiki"),
        ({"git_commit": "dead" * 4}, "trained by different commits of the code: a c0ffee0, b deaddea"),
        ({"git_commit": None}, "the commit of the code is not known of b"),
        ({"git_dirty": True}, "trained with uncommitted changes to the code: b"),
        ({"status": "killed", "step": 40}, "b is not finished: killed at step 40 of 100"),
    ],
)
def test_what_is_not_fair_is_flagged_and_refused_when_strict(home, facts, said):
    comparison = two(home, facts=({}, facts))
    assert said in comparison.to_json()["flags"]
    assert figure(comparison)["comparable"]
    with pytest.raises(UserError, match="not a fair comparison") as refusal:
        refuse_unfair(comparison)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"verdict": "has not learned: 4.80 bits/byte"}, "b: has not learned: 4.80 bits/byte"),
        ({"seconds": 400.0}, "training time differs (seconds): a 100, b 400 (4 times)"),
        ({"parameters": 1_005_000, "active_parameters": 1_005_000}, "one seed each"),
    ],
)
def test_cautions_are_said_and_do_not_refuse(home, facts, said):
    comparison = two(home, facts=({}, facts))
    assert any(flag.startswith(said) for flag in comparison.to_json()["flags"])
    refuse_unfair(comparison)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"draws": 16}, "noise draws a row: a 8, b 16"),
        ({"weights": "last step"}, "the weights that were judged: a moving average, b last step"),
        ({"steps": 20}, "sampling steps: a 64, b 20"),
        ({"temperature": 0.7}, "the temperature: a 1.0, b 0.7"),
        ({"sampler": "left_to_right"}, "the sampler: a ancestral, b left_to_right"),
    ],
)
def test_another_way_to_the_same_quantity_is_flagged(home, change, said):
    both = LIKELIHOOD | SAMPLED
    comparison = two(home, protocols=(both, both | change))
    assert said in comparison.to_json()["flags"]
    assert said in figure(comparison)["flags"]


def test_alarms_of_the_training_are_flagged(home):
    home.run("a")
    home.registry.metrics["a"] = [
        {"kind": "train", "step": 1},
        {"kind": "alarm", "step": 3, "name": "exploding gradient"},
        {"kind": "alarm", "step": 4, "name": "exploding gradient"},
    ]
    home.judge("a", 2.5)
    home.run("b")
    home.judge("b", 2.6)
    assert "a raised alarms in training: exploding gradient ×2" in compare(home, "a", "b").to_json()["flags"]


def test_weights_that_are_not_the_last_are_flagged(home):
    home.run("a")
    home.judge("a", 2.5, step=50)
    home.run("b")
    home.judge("b", 2.6)
    assert "a was judged at step 50, and was trained to 100" in compare(home, "a", "b").to_json()["flags"]


def test_equal_runs_have_nothing_flagged_but_their_single_seeds(home):
    flags = two(home).to_json()["flags"]
    assert flags == ["one seed each: intervals are over examples, not over trainings"]


# ── said ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_three_seeds_against_three_are_welchs(home):
    first, second = [2.55, 2.57, 2.54], [2.66, 2.69, 2.67]
    runs = [*home.seeds("mdlm", first), *home.seeds("udlm", second)]
    comparison = compare(home, *(run.id for run in runs))
    assert [(arm.name, arm.seeds) for arm in comparison.arms] == [("mdlm", [1, 2, 3]), ("udlm", [1, 2, 3])]
    (difference,) = figure(comparison)["differences"]
    theirs = scipy.stats.ttest_ind(first, second, equal_var=False)
    expected = theirs.confidence_interval(0.95)
    assert difference["interval"] == pytest.approx([expected.low, expected.high])
    assert difference["p"] == difference["p_adjusted"] == pytest.approx(theirs.pvalue)
    assert difference["method"] == "over seeds (Welch t)"
    assert difference["paired_by_seed"]["p"] == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue)
    values = figure(comparison)["values"]
    assert values[0]["per_run"] == first
    assert (values[0]["over"], values[0]["n"], values[0]["best"], values[1]["best"]) == ("seeds", 3, True, False)
    assert values[0]["stderr"] == pytest.approx(scipy.stats.sem(first))
    assert comparison.verdict == (
        f"mdlm is better than udlm by 0.120 bits/byte (95 % interval {-expected.high:.3f} to {-expected.low:.3f}, "
        "over 3 seeds each, both upper bounds), at equal parameters, tokens and FLOPs"
    )
    assert not any("one seed" in flag for flag in comparison.to_json()["flags"])


def test_one_seed_each_on_the_same_rows_is_paired_and_called_so(home):
    for name, shift in (("a", 0.0), ("b", 0.05)):
        home.run(name)
        value, examples = rows(2.5, shift=shift)
        home.judge(name, value, examples=examples, stderr=0.03)
    (difference,) = figure(compare(home, "a", "b"))["differences"]
    assert difference["method"] == "paired over examples"
    assert difference["stderr"] < 0.01 < math.hypot(0.03, 0.03)
    assert difference["winner"] == "a"


def test_other_rows_are_not_paired(home):
    for name, identity in (("a", "rows"), ("b", "others")):
        home.run(name)
        value, examples = rows(2.5, identity=identity)
        home.judge(name, value, examples=examples, stderr=0.03)
    (difference,) = figure(compare(home, "a", "b"))["differences"]
    assert difference["method"] == "unpaired over examples"
    assert difference["stderr"] == pytest.approx(math.hypot(0.03, 0.03))
    assert difference["winner"] is None
    assert difference["verdict"].startswith("no difference can be told: a − b = 0")


def test_one_run_against_several_seeds_is_judged_by_how_much_they_vary(home):
    several = home.seeds("mdlm", [2.5, 2.6])
    home.run("udlm")
    home.judge("udlm", 2.7)
    comparison = compare(home, several[0].id, several[1].id, "udlm")
    (difference,) = figure(comparison)["differences"]
    assert difference["method"] == "one run against several seeds (t)"
    assert difference["stderr"] == pytest.approx(math.sqrt(0.005 * 1.5))
    assert difference["winner"] is None
    assert "unequal numbers of seeds: mdlm 2, udlm 1" in comparison.to_json()["flags"]


def test_a_bound_below_an_exact_figure_decides_and_one_above_does_not(home):
    below = two(home, 2.0, 2.5, protocols=(LIKELIHOOD, EXACT))
    assert below.verdict.startswith("a is better than b by 0.500 bits/byte")
    assert (
        "an upper bound that is lower than an exact figure decides; one that is higher does not"
        in (below.to_json()["flags"])
    )
    home.judge("a", 2.8)
    above = compare(home, "a", "b")
    assert above.verdict.startswith(
        "not decided: a has an upper bound that is 0.300 bits/byte above the exact figure of b"
    )
    (difference,) = figure(above)["differences"]
    assert difference["winner"] is None
    # an exact likelihood has no draws to differ in
    assert not any("draws" in flag for flag in above.to_json()["flags"])


def test_of_several_arms_an_exact_figure_is_not_decided_against_bounds_above_it(home):
    for name, value, protocol in (("a", 2.0, EXACT), ("b", 2.5, LIKELIHOOD), ("c", 2.6, EXACT)):
        home.run(name)
        home.judge(name, value, protocol=protocol)
    decides_nothing = "an upper bound above an exact figure decides nothing"
    assert f"a is better than c; not decided against b: {decides_nothing} (3 pairs" in (
        compare(home, "a", "b", "c").verdict
    )
    home.judge("c", 2.6)
    assert f"a has the best figure; not decided against b and c: {decides_nothing} (3 pairs" in (
        compare(home, "a", "b", "c").verdict
    )


def test_who_beats_nothing_is_said_first(home):
    comparison = two(home, 4.0, 3.9)
    assert comparison.verdict.startswith(
        "a and b have not learned: not better than the token unigram (2.900); neither beats the byte bigram (3.800); "
        "b is better than a by 0.100"
    )
    assert comparison_lines(comparison)[0] == comparison.verdict


def test_the_easiest_value_that_none_beats_is_named_and_who_fails_before_it(home):
    beside = {"unigram": 4.5, "byte 2-gram": 3.8, "byte 3-gram": 2.97, "byte 4-gram": 2.4}
    for name, value in (("a", 2.96), ("b", 3.85), ("c", 2.0)):
        home.run(name)
        home.judge(name, value, trivial=beside)
    assert compare(home, "a", "b").verdict.startswith(
        "b does not beat the byte bigram (3.800); neither beats the byte trigram (2.970); a is better than b by 0.890"
    )
    # 2.96 is below 2.97, but by less than its own standard error
    assert compare(home, "a", "c").verdict.startswith(
        "a does not beat the byte trigram (2.970); a does not beat the byte 4"
    )


def test_where_trivial_values_differ_each_is_named(home):
    for name, unigram in (("a", 2.4), ("b", 4.0)):
        home.run(name, tokenizer_hash=name)
        protocol = LIKELIHOOD | {"tokenizer": name}
        home.judge(name, 4.5, trivial={"unigram": unigram, "byte 1-gram": 4.7}, protocol=protocol)
    assert compare(home, "a", "b").verdict.startswith(
        "a and b have not learned: not better than the token unigram (2.400 and 4.000)"
    )


def test_arms_are_named_by_what_tells_them_apart(home):
    for place, tokenizer in enumerate(("bpe 300", "byte 258")):
        run = home.run(f"mdlm_D32L1_2026112{place}_080000", tokenizer=tokenizer)
        home.judge(run.id, 2.5)
    names = [arm.name for arm in compare(home, *(run.id for run in home.registry.list())).arms]
    assert names == ["mdlm_D32L1_byte258", "mdlm_D32L1_bpe300"]


def test_where_all_trivial_values_are_beaten_nothing_is_said_of_them(home):
    assert two(home, 2.5, 2.7).verdict.startswith("a is better than b by 0.200 bits/byte")


@pytest.mark.parametrize("people", ["held-out text", "other held-out text", "every text of the data"])
def test_values_of_peoples_text_are_no_values_to_beat(home, people):
    beside = {people: 0.9, "random guess": 0.2}
    for name, value in (("a", 0.5), ("b", 0.3)):
        home.run(name)
        home.judge(name, value, name="answers_right", unit="share", task="answers", trivial=beside, protocol=SAMPLED)
    assert compare(home, "a", "b").verdict.startswith("a is better than b by 0.200 share")


def test_a_figure_without_a_direction_has_no_winner(home):
    for name, value in (("a", 3.0), ("b", 3.5)):
        home.run(name)
        home.judge(name, value, name="entropy", unit="nats/token", task="quality", protocol=SAMPLED, trivial={})
    comparison = compare(home, "a", "b")
    found = figure(comparison, "entropy")
    assert found["better"] is None
    assert found["differences"][0]["winner"] is None
    assert not any(value["best"] for value in found["values"])
    assert comparison.verdict.startswith("entropy of b is 0.500 nats/token above that of a")
    assert comparison.verdict.endswith("neither high nor low is better by itself")


def test_budgets_that_differ_stand_in_the_verdict(home):
    comparison = two(home, facts=({"parameters": 3_000_000, "flops": None}, {}))
    assert comparison.verdict.endswith(", at equal tokens but with 3 times the parameters")


def test_four_arms_are_held_together_by_holm(home):
    for name, value in (("a", 2.50), ("b", 2.55), ("c", 2.56), ("d", 2.8)):
        home.run(name)
        home.judge(name, value)
    comparison = compare(home, "a", "b", "c", "d")
    differences = figure(comparison)["differences"]
    assert len(differences) == 6
    assert all(each["p_adjusted"] >= each["p"] for each in differences)
    assert comparison.verdict == (
        "a is better than d; whether than b or c cannot be told (6 pairs, Holm's correction, all verdicts hold "
        "together at 0.95)"
    )
    corrected = [each for each in differences if each["p"] <= 0.05 < each["p_adjusted"]]
    for each in corrected:
        assert "after Holm's correction" in each["verdict"]


def test_a_figure_without_an_error_tells_nothing(home):
    for name, value in (("a", 2.0), ("b", 2.5)):
        home.run(name)
        home.judge(name, value, stderr=None)
    (difference,) = figure(compare(home, "a", "b"))["differences"]
    assert difference["interval"] is None
    assert difference["verdict"] == "no difference can be told: a − b = -0.500 bits/byte, without a standard error"


# ── which figures ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_measurement_of_a_protocol_counts(home):
    two(home)
    home.judge("a", 2.1, protocol=LIKELIHOOD | {"seed": 5})
    assert figure(compare(home, "a", "b"))["values"][0]["mean"] == 2.1


def test_equal_numbers_of_steps_stand_beside_each_other(home):
    for name, faster in (("a", 1.0), ("b", 2.0)):
        home.run(name)
        for steps in (20, 100) if name == "a" else (20, 50, 100):
            home.judge(
                name,
                faster * steps,
                name="seconds_per_sample",
                unit="s",
                task="steps",
                protocol=SAMPLED | {"steps": steps},
                trivial={},
            )
    comparison = compare(home, "a", "b")
    found = comparison.to_json()["figures"]
    assert [[value["mean"] for value in each["values"]] for each in found] == [[20.0, 40.0], [100.0, 200.0]]
    assert [each["protocol"]["steps"] for each in found] == [20, 100]
    text = "\n".join(comparison_lines(comparison))
    assert "seconds_per_sample (steps=20)" in text
    assert "seconds_per_sample (steps=100)" in text


def test_a_repeated_seed_counts_once(home):
    home.seeds("mdlm", [2.5, 2.6])
    home.run("mdlm_D64_20261130_080000", seed=1, setup_hash="mdlm", created="2026-11-30T08:00:00+00:00")
    home.judge("mdlm_D64_20261130_080000", 2.4)
    home.run("udlm")
    home.judge("udlm", 2.9)
    comparison = compare(home, *(run.id for run in home.registry.list()))
    assert sorted(figure(comparison)["values"][1]["per_run"]) == [2.4, 2.6]
    assert any("mdlm_D64_20261121_080000 left out" in flag for flag in comparison.to_json()["flags"])


def test_repetitions_alone_are_compared_run_by_run_and_called_so(home):
    runs = home.seeds("mdlm", [2.5, 2.6])
    comparison = compare(home, *(run.id for run in runs))
    assert [arm.name for arm in comparison.arms] == ["mdlm_D64_seed1", "mdlm_D64_seed2"]
    assert any(flag.startswith("the runs repeat one setup with other seeds") for flag in comparison.to_json()["flags"])


def test_examples_of_a_share_of_right_answers_are_paired(home):
    right = [1.0] * 30 + [0.0] * 30
    for name, values in (("a", right), ("b", [0.0] * 10 + right[10:])):
        home.run(name)
        examples = Examples(identity="prompts", values=values)
        home.judge(
            name,
            sum(values) / 60,
            name="answers_right",
            unit="share",
            task="answers",
            protocol=SAMPLED,
            trivial={"random guess": 0.01},
            examples=examples,
        )
    (difference,) = figure(compare(home, "a", "b"), "answers_right")["differences"]
    assert difference["p"] == pytest.approx(scipy.stats.ttest_rel([1.0] * 10 + [0.0] * 50, [0.0] * 60).pvalue)


def test_two_examples_of_which_one_arm_has_all_right_and_the_other_none_tell_nothing(home):
    for name, value in (("a", 1.0), ("b", 0.0)):
        home.run(name)
        facts = {"name": "answers_right", "unit": "share", "task": "answers", "protocol": SAMPLED, "trivial": {}}
        home.judge(name, value, n=2, stderr=0.0, examples=Examples(identity="two", values=[value] * 2), **facts)
    (difference,) = figure(compare(home, "a", "b"), "answers_right")["differences"]
    assert (difference["p"], difference["interval"], difference["winner"]) == (0.5, None, None)
    assert difference["verdict"] == (
        "no difference can be told: a − b = 1.000 share (no interval: all alike, over 2 examples in pairs)"
    )


def test_runs_that_an_arms_mean_is_without_are_named(home):
    runs = [*home.seeds("mdlm", [2.55, 2.57]), *home.seeds("udlm", [2.66, 2.69])]
    lost = home.run("udlm_D64_20261123_080000", seed=3, setup_hash="udlm")
    home.judge(lost.id, None)
    comparison = compare(home, *(run.id for run in runs), lost.id)
    assert f"bits_per_byte of udlm is without {lost.id}" in comparison.to_json()["flags"]
    assert not any("of mdlm is without" in flag for flag in comparison.to_json()["flags"])


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *(("bits_per_byte", "lower"), ("seconds_per_sample", "lower"), ("seconds_alone", "lower")),
        *(("answers_right", "higher"), ("mauve", "higher"), ("judged_perplexity", None), ("entropy", None)),
    ],
)
def test_which_way_a_figure_is_better(name, way):
    assert better(name) == way


def test_arms_may_be_given_names_that_tell_them_apart(home):
    two(home)
    names = {"a": "as it is", "b": "network.bias=true"}
    assert [arm.name for arm in compare(home, "a", "b", names=names).arms] == ["as it is", "network.bias=true"]
    assert [arm.name for arm in compare(home, "a", "b", names={"a": "x", "b": "x"}).arms] == ["a", "b"]


def test_a_figure_that_has_become_infinite_is_not_replaced_by_an_older_one(home):
    two(home)
    home.judge("a", 3.0, name="nats_per_token", unit="nats/token")
    home.judge("b", 3.0, name="nats_per_token", unit="nats/token")
    home.judge("b", None)
    comparison = compare(home, "a", "b")
    assert [each["name"] for each in comparison.to_json()["figures"]] == ["nats_per_token"]
    assert "bits_per_byte of b is not finite" in comparison.to_json()["flags"]


def test_the_comparison_is_plain_json_with_the_arms_facts(home):
    comparison = two(home)
    values = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert set(values) == {"level", "verdict", "arms", "figures", "flags"}
    facts = values["arms"][0]["facts"]
    assert (facts["parameters"], facts["tokens_seen"], facts["data"], facts["epochs"]) == (1e6, 1e6, "python-docs", 2.0)
    assert values["arms"][0]["runs"] == ["a"]


def test_the_text_shows_bounds_errors_trivial_values_and_who_is_best(home):
    lines = comparison_lines(two(home, protocols=(LIKELIHOOD, EXACT)))
    (row,) = [line for line in lines if line.strip().startswith("bits_per_byte") and "3-gram" in line]
    assert "*≤ 2.500 ± 0.020" in row
    assert " 2.700 ± 0.020" in row
    assert row.endswith("unigram 2.900, byte 3-gram 2.970, uniform 3.400")
    assert any("a − b" in line and "-0.256 to -0.144" in line for line in lines), lines


def test_the_text_shows_the_trivial_values_of_all_arms(home):
    for name, guess in (("a", 0.10), ("b", 0.12)):
        home.run(name)
        beside = {"random guess": guess, "most common response": 0.05}
        home.judge(name, 0.5, name="answers_right", unit="share", task="answers", protocol=SAMPLED, trivial=beside)
    (row,) = [line for line in comparison_lines(compare(home, "a", "b")) if "random guess" in line]
    assert row.endswith("random guess 0.100 to 0.120, most common response 0.050")
