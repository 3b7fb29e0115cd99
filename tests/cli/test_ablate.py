"""`remask ablate`: steps of a real tiny model; components, sizes and matched pairs with pretended trainings."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import refused, succeeds

from pretended_runs import PretendedRunner
from remask import judgement
from remask.config.schema import Recipe
from remask.laboratory import conducting, jobs, matching
from remask.report import study_page
from remask.runs import Registry

Costs = Mapping[str, float]


@pytest.fixture
def pretend(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PretendedRunner]:
    """Puts trainings that only write records in the place of real ones."""

    def make(**given: Callable) -> PretendedRunner:
        runner = PretendedRunner(home, curve=lambda recipe: [5.0, 4.0, 3.5, 3.2], **given)
        monkeypatch.setattr(jobs, "Processes", lambda **asked: runner)
        monkeypatch.setattr(conducting, "POLL", 0.0)
        monkeypatch.setattr(matching, "_analytic", lambda registry, run: 100.0)
        monkeypatch.setattr(study_page, "write_study", lambda study, file: None)  # drawn in test_sweep and tests/report
        return runner

    return make


def study(home: Path, name: str = "s") -> dict:
    return json.loads((home / "studies" / name / "study.json").read_text())


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steps_are_timed_counted_and_judged_as_one_evaluation(trained, finished, monkeypatch):
    finished("ar-file")
    judge = next(path for path in finished("ar-file").glob("*/model"))
    asked = ["ablate", "steps", "last", "--steps", "4,2", "--samplers", "ancestral,confidence", "--count", 3]
    done = succeeds(*asked, "--repeats", 2, "--judge", judge, "--html", "page.html")
    lines = done.out.splitlines()
    assert lines[0].split() == [
        *("sampler", "steps", "s/sample", "s", "alone", "calls", "entropy", "repetition", "distinct_2"),
        *("judged", "ppl"),
    ]
    assert [line.split()[:2] for line in lines[1:5]] == [
        *(["ancestral", "2"], ["ancestral", "4"], ["confidence", "2"], ["confidence", "4"])
    ]
    assert lines[5].startswith("held-out text")
    (record,) = Registry(trained).evaluation_records()
    assert (record.task, record.status) == ("steps", "finished")
    rows = [row for row in Registry(trained).measurements() if row["evaluation"] == record.id]
    calls = {
        (r["protocol"]["sampler"], r["protocol"]["steps"]): r["value"] for r in rows if r["name"] == "network_calls"
    }
    assert calls == {("ancestral", 2): 2, ("ancestral", 4): 4, ("confidence", 2): 2, ("confidence", 4): 4}
    for name, at_once in (("seconds_per_sample", 3), ("seconds_alone", 1)):
        costs = [row for row in rows if row["name"] == name]
        assert len(costs) == 4
        assert all(
            row["value"] > 0 and row["n"] == 2 and row["protocol"]["samples_at_once"] == at_once for row in costs
        )
    assert len([row for row in rows if row["name"] == "entropy"]) == 4, "the judge's entropy is the same one"
    assert "Steps, quality and latency" in Path("page.html").read_text()


def test_the_samples_that_are_timed_are_those_of_remask_evaluate(trained):
    table = succeeds("ablate", "steps", "--steps", 3, "--count", 4, "--repeats", 1, "--json").objects
    judged = succeeds("evaluate", "--task", "quality", "--count", 4, "--steps", 3, "--json").objects
    own = {row["name"]: row["value"] for row in table}
    assert {row["name"]: row["value"] for row in judged} == {row["name"]: own[row["name"]] for row in judged}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "20,x"], "--steps 20,x"),
        (["--steps", "0"], "--steps 0"),
        (["--samplers", "ancestrel"], "ancestrel"),
        (["--samplers", "ancestral,"], "empty value"),
        (["--html", "gone/page.html"], "there is no folder gone"),
        (["--samplers", "entropy_bounded"], "as many steps as the text needs"),
        (["--judge", "nobody"], "nobody"),
        (["--length", 99], "length 99"),
    ],
)
def test_a_mistake_in_steps_is_found_before_anything_is_kept(arguments, said, trained):
    assert said in refused("ablate", "steps", "last", *arguments)
    assert Registry(trained).evaluation_records() == []


def test_a_model_that_answers_prompts_is_sent_to_the_task_that_judges_answers(trained, monkeypatch):
    pairs = SimpleNamespace(corpus=SimpleNamespace(paired=True))
    monkeypatch.setattr(judgement, "open_judged_text", lambda *asked, **more: pairs)
    assert "--task answers --steps N" in refused("ablate", "steps", "last", "--steps", 2)


def test_an_autoregressive_model_has_no_steps_to_vary(trained_ar):
    assert "is autoregressive: it draws one token a step" in refused("ablate", "steps", "last")


# ── component and size ───────────────────────────────────────────────────────────────────────────────────────


def judged_by_heads(recipe: Recipe) -> float:
    """Better by 0.2 with two layers, and a little other with each seed, alike for both arms."""
    return 3.4 - 0.2 * recipe.network.layers + 0.3 * recipe.seed + 0.001 * recipe.seed**2 * recipe.network.layers


def test_a_component_is_worth_what_its_pairs_of_seeds_say(home, text, pretend):
    runner = pretend(judged=judged_by_heads)
    both = ["--both", f"data.source={text}", "--both", "tokenizer.kind=byte", "--both", "network.layers=1"]
    done = succeeds("ablate", "component", "mdlm-file", "network.layers=2", *both, "--name", "s")
    assert len(runner.begun) == len(runner.evaluated) == 6
    said = study(home)["says"][0]
    assert said.startswith("network.layers=2 changes bits_per_byte by -0.1983 bits/byte (95 % interval -0.20")
    assert said.endswith("better with it")
    assert "paired by seed" in said
    assert [trial["seed"] for trial in study(home)["trials"]] == [0, 0, 1, 1, 2, 2]
    assert "as it is" in done.out
    again = succeeds("ablate", "--resume", "s")
    assert again.out == done.out
    assert len(runner.begun) == 6


def test_one_seed_is_said_to_tell_nothing_of_chance_and_a_change_to_nothing_is_refused(home, text, pretend):
    pretend(judged=judged_by_heads)
    both = ["--both", f"data.source={text}", "--both", "network.layers=1"]
    component = ["ablate", "component", "mdlm-file"]
    assert "changes nothing" in refused(*component, "network.layers=1", *both)
    assert "the changes are missing" in refused(*component, *both)
    assert "changes nothing" in refused(*component, "name=other", *both)
    assert "give --seeds" in refused(*component, "seed=3", *both)
    assert "give --seeds" in refused(*component, "network.layers=2", *both, "--both", "seed=3")
    assert "--seeds 1,1" in refused(*component, "network.layers=2", *both, "--seeds", "1,1")
    assert not home.exists()
    succeeds(*component, "network.layers=2", *both, "--seeds", 5, "--name", "s")
    assert any("one seed says nothing of chance" in sentence for sentence in study(home)["says"])


def test_sizes_are_compared_with_their_costs(home, text, pretend):
    def costs(recipe: Recipe) -> Costs:
        facts = {"parameters": 1000 * recipe.network.layers, "flops": 1e9 * recipe.network.layers}
        return {**facts, "seconds": 2.0, "peak_memory_bytes": 2**20 * recipe.network.layers}

    pretend(judged=judged_by_heads, costs=costs)
    size = ["ablate", "size", "mdlm-file", f"data.source={text}"]
    done = succeeds(*size, "--over", "network.layers=1,2,3", "--seeds", "0,1", "--jobs", 3, "--name", "s")
    assert [arm["name"] for arm in study(home)["comparison"]["arms"]] == [f"network.layers={n}" for n in (1, 2, 3)]
    row = next(line for line in done.out.splitlines() if line.startswith("network.layers=3"))
    assert row.split()[:6] == ["network.layers=3", "0", "2.800", "±", "0.050", "3,000"]
    assert " 3 MiB " in row
    assert "sizes are missing" in refused(*size)
    assert "give --seeds" in refused(*size, "--over", "seed=1,2")
    assert "sizes are lists" in refused(*size, "--over", "network.layers=1..3")


def test_a_mixture_is_trained_beside_dense_networks_of_its_operations_and_of_its_parameters(home, text, pretend):
    runner = pretend(judged=judged_by_heads)
    asked = ["ablate", "experts", "mdlm-file", f"data.source={text}", "network.mlp_width=96"]
    mixture = ["network.experts=6", "network.experts_per_token=3", "training.batch_size=4"]
    done = succeeds(*asked, *mixture, "--seeds", "0,1", "--name", "s", "--json")
    arms = ["6 experts, 3 a token", "dense, equal operations", "dense, equal parameters"]
    assert [arm["name"] for arm in study(home)["comparison"]["arms"]] == arms
    assert done.out
    assert len(runner.begun) == 6
    trials = study(home)["trials"][:3]
    changed = [{word for word in trial["overrides"] if "mlp_width" in word} for trial in trials]
    assert changed == [
        {"network.mlp_width=96"},
        {"network.mlp_width=96", "network.mlp_width=98"},
        {"network.mlp_width=96", "network.mlp_width=194"},
    ]
    assert all("network.experts=null" in trial["overrides"] for trial in trials[1:])
    assert "there is no mixture to compare" in refused(*asked)
    assert "cannot have" in refused("ablate", "experts", "concept-diffusion", f"data.source={text}")


# ── matched pairs ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_second_of_a_matched_pair_gets_the_steps_that_the_first_ones_operations_allow(home, text, pretend):
    def costs(recipe: Recipe) -> Costs:
        tokens, each = 50 * recipe.training.steps, 1000.0 * recipe.network.layers
        facts = {"tokens_seen": tokens, "flops_per_token": each, "flops": tokens * each}
        return {**facts, "seconds": 1.0 * recipe.training.steps, "parameters": 7, "active_parameters": 5}

    runner = pretend(costs=costs)
    asked = ["mdlm-file", "mdlm-file", f"data.source={text}", "training.steps=90", "training.evaluate_every=30"]
    pair = ["ablate", "matched", *asked, "a:network.layers=3", "b:network.layers=2", "--seeds", "0,1", "--name", "s"]
    succeeds(*pair)
    found = study(home)
    assert found["matched"]["arms"] == ["mdlm-file-layers-3", "mdlm-file-layers-2"]
    assert found["matched"]["steps"] == [90, 135]
    assert found["matched"]["ratios"] == {
        **{"flops": 1.0, "seconds": 1.5, "parameters": 1.0, "active_parameters": 1.0, "tokens": 1.5}
    }
    assert found["matched"]["rows"][1]["flops_per_token_measured"] == 2000.0
    assert found["matched"]["rows"][1]["flops_per_token_analytic"] == 100.0
    trials = found["trials"]
    assert [trial["calibration"] for trial in trials] == [True, True, False, False, False, False]
    assert {"training.steps=135", "training.evaluate_every=45"} <= set(trials[3]["overrides"])
    assert len(runner.evaluated) == 4, "short trainings are not judged"
    assert "was trained 135 steps, mdlm-file-layers-3 90, for equal training FLOPs" in found["says"][0]
    assert "1.5 times the seconds" in found["says"][0]
    assert "not equal" not in found["says"][0]
    assert "--jobs 2: trainings side by side" in refused("ablate", "--resume", "s", "--jobs", 2)


def test_time_is_measured_by_short_trainings_in_turns_and_a_miss_is_said(home, text, pretend):
    def costs(recipe: Recipe) -> Costs:
        rate = {1: 0.5, 2: 2.0}[recipe.network.layers]
        late = 1.3 if recipe.network.layers == 2 and recipe.name.endswith("2") else 1.0  # slower than it was measured
        return {"tokens_seen": 10, "seconds": rate * late * recipe.training.steps}

    pretend(costs=costs)
    words = ["mdlm-file", "mdlm-file", f"data.source={text}", "training.steps=80", "a:network.layers=1"]
    succeeds("ablate", "matched", *words, "b:network.layers=2", "--by", "time", "--seeds", 0, "--name", "s")
    found = study(home)
    arms = [trial["arm"].rpartition("-")[2] for trial in found["trials"] if trial["calibration"]]
    assert arms == ["1", "2", "1", "2"]
    assert found["matched"]["steps"] == [80, 20]
    assert found["matched"]["ratios"]["seconds"] == pytest.approx(1.3)
    assert "In training time they are not equal: read the verdict with that in mind" in found["says"][0]


def test_what_cannot_be_measured_or_afforded_is_said(home, text, pretend):
    pretend(costs=lambda recipe: {"tokens_seen": 10, "seconds": 10.0**recipe.network.layers})
    pair = ["ablate", "matched", "mdlm-file", "mdlm-file", f"data.source={text}", "training.steps=2"]
    pair += ["a:network.layers=1", "b:network.layers=4"]
    assert "match them --by time" in refused(*pair, "--name", "s", code=1)
    assert "cannot make one step" in refused(*pair, "--by", "time", "--name", "t", code=1)
    assert "did you mean 'time'" in refused(*pair, "--by", "tim")
    assert "--jobs 2" in refused(*pair, "--jobs", 2)
    assert "are the same recipe" in refused(*pair[:6])
    assert "is two recipes" in refused("ablate", "matched", "mdlm-file", "training.steps=2")
    assert "is not KEY=VALUE" in refused("ablate", "matched", "mdlm-file", "ar-file", "layers")


def test_ablate_alone_says_what_there_is_and_an_unknown_study_is_named(home):
    assert "steps, component, size, experts or matched" in refused("ablate")
    assert "there is no study s" in refused("ablate", "--resume", "s")
    assert "there is no command stesp; did you mean 'steps'?" in refused("ablate", "stesp")
