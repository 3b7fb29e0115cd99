"""The controller of a study: parallel, pruning, failing, interrupted and killed at every moment."""

import math
import os
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from pretended_runs import Patience, PretendedRunner
from remask.config.load import load_recipe
from remask.errors import UserError
from remask.laboratory import conducting, kinds, search
from remask.laboratory.conducting import Conductor
from remask.laboratory.kinds import try_again
from remask.laboratory.results import OF_ANSWERS, RANKING, read_metric
from remask.laboratory.search import Search
from remask.laboratory.space import read_over
from remask.laboratory.study import Metric, Study, Trial
from remask.laboratory.sweeps import best_in_words, conclude_sweep, new_sweep
from remask.runs import Registry

BITS = Metric(name="bits_per_byte", task=None, better="lower", unit="bits/byte")
RATE = "training.learning_rate"


class Killed(BaseException):
    """Nothing of the controller runs after this."""


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between looks, and what Optuna keeps in memory: a file of it takes most of a test's time."""
    kept: dict[Path, InMemoryStorage] = {}
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(conducting, "POLL", 0.0)
    monkeypatch.setattr(search, "storage_of", lambda folder: kept.setdefault(folder, InMemoryStorage()))


def make(home: Path, *over: str, metric: Metric = BITS, **facts) -> Study:
    recipe = load_recipe("mdlm")
    text = "name: mdlm\ndata: {source: python-docs}\n"
    given = {"sampler": "grid", "trials": 3, "prune": "none", "seed": 0, "jobs": 1, "evaluate": [], "cluster": None}
    return new_sweep(
        home,
        "s",
        recipe=recipe,
        source=text,
        overrides=["training.evaluate_every=10", "training.steps=40"],
        over=read_over(over, recipe=recipe),
        metric=metric,
        **{**given, **facts},
    )


def conductor(study: Study, runner: PretendedRunner, said: list[str] | None = None) -> Conductor:
    return Conductor(
        study,
        registry=Registry(study.home),
        runner=runner,
        searching=Search(study),
        at_once=study.facts["jobs"],
        evaluating=tuple(study.facts["evaluate"]),
        say=(said if said is not None else []).append,
    )


def flat(recipe, *, length: int = 4) -> list[float | None]:
    """Bits that are least at a rate of 1e-3, the same at each validation."""
    return [3.0 + abs(math.log10(recipe.training.learning_rate) + 3)] * length


def told(study: Study) -> list[tuple]:
    """What of a study does not depend on when it was conducted."""
    return [(t.number, dict(t.values), t.state, t.value, t.curve) for t in study.trials]


def test_all_combinations_are_trained_ranked_and_tagged(tmp_path):
    study, runner = make(tmp_path, f"{RATE}=1e-4,1e-3,1e-2"), PretendedRunner(tmp_path, curve=flat)
    assert conductor(study, runner).conduct(Patience(1000))
    assert [trial.value for trial in study.trials] == pytest.approx([4.0, 3.0, 4.0])
    assert runner.most == 1
    found = conclude_sweep(study, Registry(tmp_path))
    assert found["best"]["trial"] == 1
    assert (
        "best of 3: trial 1, bits_per_byte 3.000 ± 0.100 bits/byte at training.learning_rate=1e-3" in found["says"][0]
    )
    assert "; it beats the byte bigram (4.000). The second" in found["says"][0]
    assert "more than two standard errors" in found["says"][0]
    assert any("looks better than it is" in sentence for sentence in found["says"])
    assert found["says"][-1].startswith(f"next: remask evaluate {study.trials[1].run} --task likelihood --split test")
    assert all(record.tags == ["study:s"] for record in Registry(tmp_path).list())


def test_no_more_trials_run_at_once_than_asked_for(tmp_path):
    study = make(tmp_path, f"{RATE}=1e-4,1e-3,1e-2,1e-1,1", trials=5, jobs=3)
    runner = PretendedRunner(tmp_path, curve=flat)
    assert conductor(study, runner).conduct(Patience(1000))
    assert runner.most == 3
    assert len(runner.begun) == 5


@pytest.mark.parametrize("last", [None, 3.5])
def test_a_failed_trial_and_one_without_a_finite_figure_are_never_the_best(tmp_path, last):
    curves = {1e-4: [], 1e-3: [2.0, None], 1e-2: [3.0, last]}
    study = make(tmp_path, f"{RATE}=1e-4,1e-3,1e-2")
    runner = PretendedRunner(tmp_path, curve=lambda recipe: curves[recipe.training.learning_rate])
    assert conductor(study, runner).conduct(Patience(1000))
    assert [trial.state for trial in study.trials] == ["failed", "failed", "failed" if last is None else "finished"]
    assert study.trials[0].error == "the disk is full"
    assert study.trials[1].error == "its bits_per_byte is missing or not a finite number"
    found = conclude_sweep(study, Registry(tmp_path))
    assert (found["best"] is None) == (last is None)
    assert any("failed" in sentence for sentence in found["says"])
    states = [trial.state.name for trial in Search(study)._kept.get_trials()]
    assert states == ["FAIL", "FAIL", "FAIL" if last is None else "COMPLETE"]


def test_failed_trials_are_tried_again_when_that_is_asked_from_where_they_stopped(tmp_path):
    study, curves = make(tmp_path, f"{RATE}=1e-4,1e-3,1e-2"), {1e-4: [], 1e-3: [3.2, 3.1], 1e-2: [3.4, 3.3]}
    runner = PretendedRunner(tmp_path, curve=lambda recipe: curves[recipe.training.learning_rate])
    assert conductor(study, runner).conduct(Patience(1000))
    registry = Registry(tmp_path)
    removed, kept = study.trials[1].run, study.trials[2].run
    registry.forget(removed)
    registry.update(kept, status="failed", error="the disk is full")
    for number in (1, 2):
        study.change_trial(number, state="failed", error="the disk is full")
    curves[1e-4] = [2.9, 2.8]
    assert try_again(study, registry) == 3
    again = PretendedRunner(tmp_path, curve=runner.curve)
    assert conductor(study, again).conduct(Patience(1000))
    assert [(trial.state, trial.value) for trial in study.trials] == [("finished", v) for v in (2.8, 3.1, 3.3)]
    assert (len(again.begun), again.resumed) == (2, [kept])
    assert try_again(study, registry) == 0


def test_a_figure_of_a_task_is_measured_after_training_and_its_best_is_the_highest(tmp_path):
    metric = Metric(name="bits_per_byte", task="answers", better="higher", unit="")
    study = make(tmp_path, f"{RATE}=1e-4,1e-3,1e-2", metric=metric, evaluate=["--task", "answers"])
    runner = PretendedRunner(tmp_path, curve=flat, judged=lambda recipe: recipe.training.learning_rate)
    assert conductor(study, runner).conduct(Patience(1000))
    assert runner.evaluated == runner.begun
    assert [trial.value for trial in study.trials] == [1e-4, 1e-3, 1e-2]
    assert study.metric.unit == "bits/byte"
    assert conclude_sweep(study, Registry(tmp_path))["best"]["trial"] == 2


def test_the_median_stops_a_hopeless_trial_and_halving_most(tmp_path):
    rates = [1e-3, 1e-3 * 1.01, 1e-3 * 1.02, 1e-3 * 1.03, 1.0, 1e-3 * 1.04]
    study = make(tmp_path, f"{RATE}={','.join(map(str, rates))}", trials=6, prune="median")
    runner = PretendedRunner(tmp_path, curve=flat)
    said: list[str] = []
    assert conductor(study, runner, said).conduct(Patience(1000))
    assert [trial.state for trial in study.trials[:5]] == ["finished"] * 4 + ["pruned"]
    pruned = study.trials[4]
    assert pruned.curve == ((10, 6.0),)
    record = Registry(tmp_path).get(pruned.run)
    assert (record.status, record.error) == ("interrupted", "pruned by study s")
    assert set(record.tags) == {"study:s", "pruned"}
    assert "trial 4 is pruned at step 10: others were better by then" in said
    assert conclude_sweep(study, Registry(tmp_path))["best"]["trial"] == 0


def test_ctrl_c_stops_what_runs_and_the_study_goes_on_where_it_was(tmp_path):
    over = [f"{RATE}=1e-4..1:log"]
    facts = {"sampler": "tpe", "trials": 4, "jobs": 2}
    whole = make(tmp_path / "a", *over, **facts)
    conductor(whole, PretendedRunner(tmp_path / "a", curve=flat)).conduct(Patience(1000))
    study, runner = make(tmp_path / "b", *over, **facts), PretendedRunner(tmp_path / "b", curve=flat)
    assert not conductor(study, runner).conduct(Patience(2))
    assert runner.going == set()
    assert [trial.state for trial in study.trials] == ["running", "running"]
    again = Study.open(tmp_path / "b", "s")
    assert conductor(again, runner).conduct(Patience(1000))
    assert (len(runner.begun), len(runner.resumed)) == (4, 2)
    assert told(again) == told(whole)


@pytest.mark.parametrize("prune", ["none", "median"])
def test_a_controller_killed_at_any_of_its_writes_leaves_a_study_that_ends_as_if_it_never_was(
    tmp_path, monkeypatch, prune
):
    def begin(home: Path) -> tuple[Study, PretendedRunner]:
        facts = {"sampler": "random", "trials": 6 if prune == "median" else 2, "prune": prune}
        return make(home, f"{RATE}=1e-4..1:log", "network.layers=1,2", **facts), PretendedRunner(home, curve=flat)

    whole, runner = begin(tmp_path / "whole")
    saves = []
    save = Study.save
    with monkeypatch.context() as patch:
        patch.setattr(Study, "save", lambda self: (saves.append(1), save(self)))
        conductor(whole, runner).conduct(Patience(1000))
    first = 0
    if prune == "median":
        states = [trial.state for trial in whole.trials]
        first = 8 * states.index("pruned")
    moments = range(first, 2 * len(saves), 3)  # before and after a write in turns
    moments = moments if prune == "none" else moments[:2]
    for moment in moments:
        study, runner = begin(tmp_path / str(moment))
        left = [moment // 2]

        def dying(self: Study, left: list[int] = left, after: int = moment % 2) -> None:
            left[0] -= 1
            if left[0] >= 0 or after:
                save(self)
            if left[0] < 0:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Study, "save", dying)
            with pytest.raises(Killed):
                conductor(study, runner).conduct(Patience(1000))
        again = Study.open(study.home, "s")
        assert conductor(again, runner).conduct(Patience(1000))
        assert told(again) == told(whole), moment
        assert len(runner.begun) == len(whole.trials), "a training is begun twice, or not at all"
        assert runner.going == set()


def test_a_draw_that_was_cut_short_is_drawn_again(tmp_path, monkeypatch):
    over = [f"{RATE}=1e-4..1:log", "network.layers=1,2"]
    whole = make(tmp_path / "a", *over, sampler="random", trials=2)
    conductor(whole, PretendedRunner(tmp_path / "a", curve=flat)).conduct(Patience(1000))
    monkeypatch.undo()  # in Optuna's file, as it is
    study = make(tmp_path / "b", *over, sampler="random", trials=2)
    Search(study)._kept.ask()  # killed before any value was drawn
    assert conductor(study, PretendedRunner(tmp_path / "b", curve=flat)).conduct(Patience(1000))
    assert told(study) == told(whole)
    assert study.trials[0].drawn == 1
    (study.path / "optuna.sqlite").write_text("no database" * 100)
    with pytest.raises(UserError, match=r"optuna\.sqlite cannot be read: .*not a database"):
        Search(study)
    monkeypatch.setattr(search, "storage_of", lambda folder: InMemoryStorage())
    with pytest.raises(UserError, match="does not have all trials of this study"):
        Search(study)


def test_a_run_that_was_removed_fails_its_own_trial_and_is_missed_in_no_conclusion(tmp_path):
    study, runner = make(tmp_path, f"{RATE}=1e-4,1e-3,1e-2"), PretendedRunner(tmp_path, curve=flat)
    assert conductor(study, runner).conduct(Patience(1000))
    registry = Registry(tmp_path)
    for trial in study.trials[:2]:
        registry.forget(trial.run)
    study.change_trial(0, state="running", value=None)
    assert conductor(study, runner).conduct(Patience(1000))
    assert study.trials[0].error == f"its run {study.trials[0].run} was removed"
    found = conclude_sweep(study, registry)
    assert found["best"]["trial"] == 1
    assert not any(sentence.startswith("next:") for sentence in found["says"]), "there is no run to judge"


def test_another_seed_of_the_search_draws_other_values(tmp_path):
    drawn = []
    for seed in (0, 0, 1):
        study = make(tmp_path / str(len(drawn)), f"{RATE}=1e-4..1:log", sampler="random", seed=seed)
        search = Search(study)
        drawn.append([search.following().values[RATE] for _ in range(1)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_importances_name_the_key_that_matters_and_need_two_keys(tmp_path):
    study = make(tmp_path / "a", f"{RATE}=1e-4..1:log", "seed=1,2", sampler="random", trials=8)
    conductor(study, PretendedRunner(tmp_path / "a", curve=flat)).conduct(Patience(1000))
    shares = conclude_sweep(study, Registry(tmp_path / "a"))["importances"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares[RATE] > 0.5
    lone = make(tmp_path / "b", f"{RATE}=1e-4..1:log", sampler="random")
    conductor(lone, PretendedRunner(tmp_path / "b", curve=flat)).conduct(Patience(1000))
    assert conclude_sweep(lone, Registry(tmp_path / "b"))["importances"] == {}


def test_a_study_has_one_controller_and_the_next_one_sees_what_it_left(tmp_path):
    study, runner = make(tmp_path, f"{RATE}=1e-4,1e-3", trials=2), PretendedRunner(tmp_path, curve=flat)
    stale = Study.open(tmp_path, "s")

    def carry(what: Study) -> bool:
        asked = {"registry": Registry(tmp_path), "runner": runner, "interrupt": Patience(1000)}
        return kinds.carry_out(what, **asked, say=lambda line: None)

    with study.lock(), pytest.raises(UserError, match="being conducted by another process"):
        carry(study)
    assert carry(study)
    assert carry(stale)
    assert len(runner.begun) == 2
    assert told(stale) == told(study)


def test_every_figure_that_ranks_has_a_direction():
    for task, names in RANKING.items():
        for name in names:
            assert read_metric(name, task=task).better == ("higher" if task in OF_ANSWERS else "lower")
    assert read_metric(None, task="answers").name == "answers_right"
    assert read_metric(None, task="arithmetic").name == "accuracy_strict"


@pytest.mark.parametrize(
    ("trivial", "said"),
    [
        ({"unigram": 2.9, "byte 2-gram": 3.8}, "; it has not learned: not better than the token unigram (2.900)"),
        ({"unigram": 3.4, "byte 2-gram": 3.8, "byte 3-gram": 2.9}, "; it beats the token unigram (3.400), but not the"),
        ({"byte 3-gram": 2.9}, "; it does not beat the byte trigram (2.900)"),
    ],
)
def test_the_best_trial_is_held_against_what_is_trivial(tmp_path, trivial, said):
    trial = Trial(
        number=0, arm="a", recipe="r", overrides=(), state="finished", value=3.0, stderr=0.01, trivial=trivial
    )
    assert said in best_in_words(make(tmp_path, f"{RATE}=1e-3"), [trial])
