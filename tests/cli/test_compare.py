"""`remask compare` through the command."""

import shutil

import pytest

from cli.command import refused, succeeds
from comparison.recorded import LIKELIHOOD, PROVENANCE, Home


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setattr("remask.runs.evaluations.collect_provenance", lambda: PROVENANCE)
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture
def pair(records):
    for name, value in (("mdlm_1", 2.5), ("udlm_1", 2.7)):
        records.run(name)
        records.judge(name, value)
    return records


def test_the_verdict_comes_first_then_arms_figures_differences_and_flags(pair):
    out = succeeds("compare", "mdlm_1", "udlm_1").out
    assert out.startswith("mdlm is better than udlm by 0.200 bits/byte (95 % interval 0.144 to 0.256")
    parts = ["\narms\n", "\n  figure ", "\n  difference ", "\nwhat is not equal, or not sure\n"]
    assert sorted(parts, key=out.index) == parts


def test_no_text_of_a_record_steers_the_terminal_or_makes_lines_of_its_own(pair):
    lines = len(succeeds("compare", "mdlm_1", "udlm_1").out.splitlines())
    pair.registry.update("mdlm_1", data="\x1b[31mred\nsecond", verdict="has not learned\x1b]0;title\x07")
    out = succeeds("compare", "mdlm_1", "udlm_1").out
    assert all(line.isprintable() for line in out.splitlines())
    assert len(out.splitlines()) == lines + 1, "the verdict's flag alone"
    assert "red second" in out


def test_three_seeds_against_three_are_two_arms(records):
    runs = [*records.seeds("mdlm", [2.50, 2.52, 2.51]), *records.seeds("udlm", [2.60, 2.64, 2.63])]
    out = succeeds("compare", *(run.id for run in runs)).out
    assert "over 3 seeds each" in out.splitlines()[0]
    assert "mdlm  3 runs (seeds 1, 2, 3)" in out
    assert "over 3 pairs of equal seeds" in out


def test_json_is_one_object_and_nothing_else(pair):
    (found,) = succeeds("compare", "mdlm_1", "udlm_1", "--json").objects
    assert found["verdict"].startswith("mdlm is better than udlm")
    assert [arm["name"] for arm in found["arms"]] == ["mdlm", "udlm"]
    assert found["figures"][0]["values"][0]["best"]


def test_the_level_sets_the_interval(pair):
    narrow, wide = (
        succeeds("compare", "mdlm_1", "udlm_1", "--json", "--level", level).objects[0]["figures"][0]["differences"][0]
        for level in (0.5, 0.999)
    )
    assert wide["interval"][0] < narrow["interval"][0] < narrow["difference"] < narrow["interval"][1]
    assert "99.9 % interval" in succeeds("compare", "mdlm_1", "udlm_1", "--level", 0.999).out


def test_incomparable_runs_are_refused_with_one_line_and_code_2(records):
    for name, data in (("a", "da7a"), ("b", "0ther")):
        records.run(name)
        records.judge(name, 2.5, protocol=LIKELIHOOD | {"data": data})
    line = refused("compare", "a", "b")
    assert line == "remask: a and b cannot be compared: in bits_per_byte they differ in the text: a da7a, b 0ther"


def test_strict_refuses_what_is_flagged_else(pair):
    pair.registry.update("udlm_1", tokens_seen=500_000)
    assert "tokens trained on differ" in succeeds("compare", "mdlm_1", "udlm_1").out
    line = refused("compare", "mdlm_1", "udlm_1", "--strict")
    assert "not a fair comparison: tokens trained on differ: mdlm 1,000,000, udlm 500,000 (2 times)" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mdlm_1"], "a comparison needs two runs or more"),
        (["mdlm_1", "mdlm_1"], "run mdlm_1 is given twice"),
        (["mdlm_1", "mdlm"], "run mdlm_1 is given twice"),
        (["mdlm_1", "nothing"], "no run 'nothing'"),
        (["mdlm_1", "udlm_1", "--metric", "bits_per_bit"], "did you mean 'bits_per_byte'?"),
        (["mdlm_1", "udlm_1", "--task", "quality"], "--task quality: none of these runs has it; Valid: likelihood."),
        (["mdlm_1", "udlm_1", "--level", "95"], "--level 95.0: give a share above 0 and below 1"),
        (["mdlm_1", "bare"], "run bare has no evaluations to compare: run `remask evaluate bare` first"),
    ],
)
def test_a_mistake_is_one_line(pair, arguments, message):
    pair.run("bare")
    assert message in refused("compare", *arguments)


def test_nothing_is_written_by_a_comparison(pair):
    before = sorted(str(path) for path in pair.registry.home.rglob("*"))
    succeeds("compare", "mdlm_1", "udlm_1")
    assert sorted(str(path) for path in pair.registry.home.rglob("*")) == before


def test_the_page_is_written_beside_the_text(pair, tmp_path):
    file = tmp_path / "page.html"
    done = succeeds("compare", "mdlm_1", "udlm_1", "--html", file)
    assert done.out.endswith(f"{file}\n")
    assert "mdlm is better than udlm by 0.200 bits/byte" in file.read_text()
    done = succeeds("compare", "mdlm_1", "udlm_1", "--html", file, "--json")
    assert len(done.objects) == 1
    assert done.err.endswith(f"{file}\n")


def test_trained_models_are_paired_over_the_rows_that_both_were_judged_on(trained, finished):
    (other,) = (path.parent for path in finished("ar-file").glob("*/run.json"))
    shutil.copytree(other, trained / other.name)
    succeeds("runs", "--rebuild")
    (own,) = {run["id"] for run in succeeds("runs", "--json").objects} - {other.name}
    for run in (own, other.name):
        succeeds("evaluate", run, "--task", "likelihood")
    (found,) = succeeds("compare", own, other.name, "--json", "--metric", "bits_per_byte").objects
    (figure,) = found["figures"]
    (difference,) = figure["differences"]
    assert difference["method"] == "paired over examples"
    first, second = (value["mean"] for value in figure["values"])
    assert difference["difference"] == pytest.approx(first - second, rel=1e-9)
    assert [value["bound"] for value in figure["values"]] == [True, False]
    assert "have not learned" in found["verdict"]  # after three steps
    assert any("the likelihood is exact or a bound" in flag for flag in found["flags"])


def test_a_run_without_evaluations_is_left_out_of_a_comparison_of_others(pair):
    pair.run("bare", recipe="other")
    (comparison,) = succeeds("compare", "mdlm_1", "bare", "udlm_1", "--json").objects
    whole = succeeds("compare", "mdlm_1", "udlm_1", "--json").objects[0]
    assert "bare is left out: it has no evaluations (`remask evaluate bare`)" in comparison["flags"]
    assert comparison["figures"][0]["differences"] == whole["figures"][0]["differences"]
