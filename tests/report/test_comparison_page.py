"""The page of a comparison: the verdict first, intervals, curves over every budget, what differs, a sample of each."""

import json
from pathlib import Path

import pytest
from page_text import Page, asks_for, dangling_ids, own_colours
from synthetic_run import TEXT, TRIVIAL, make_run, metrics, record, samples, write_lines

from remask.errors import UserError
from remask.report import RunFacts, read_run, render_comparison, write_comparison
from remask.report.arms import arms_of, letter_of, lettered, loss_panels, recipe_differences, shared_trivial
from remask.report.estimates import compact_signed, difference_rows, figure_rows, forests, labels_of, refusals

NAMES = ["mdlm_W192D4_1", "mdlm_W192D4_2", "udlm_W192D4_3"]


def make(home: Path, name: str, *, per_step: int = 8192, seed: int = 1, **changes) -> Path:
    """A run folder as of `synthetic_run`, with its own name, tokens a step and record."""
    folder = make_run(home / name)
    lines = [line | {"tokens": line["step"] * per_step} if "tokens" in line else line for line in metrics()]
    write_lines(folder / "metrics.jsonl", lines)
    told = record() | {"id": name, "seed": seed, "flops_per_token": 1e6, "verdict": f"learns: {name}"} | changes
    (folder / "run.json").write_text(json.dumps(told))
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("width: 192", f"width: {per_step}"))
    return folder


def comparison(**changes) -> dict:
    """`Comparison.to_json()` of two seeds of mdlm against one of udlm."""
    facts = {"parameters": 1e6, "data": "python-docs", "flops": 4e12, "git_dirty": True, "tokenizer_hash": "a" * 40}
    arms = [
        {"name": "mdlm", "runs": NAMES[:2], "seeds": [1, 2], "facts": facts},
        {"name": "udlm", "runs": NAMES[2:], "seeds": [1], "facts": facts | {"parameters": 2e6}},
    ]
    trivial = {"byte 3-gram": 2.97, "byte 4-gram": 2.37, "uniform": 8.0, "unigram": 4.6}

    def value(mean: float, stderr: float | None, *, best: bool) -> dict:
        return {
            "mean": mean,
            "stderr": stderr,
            "over": "examples",
            "n": 64,
            "trivial": trivial,
            "best": best,
            "bound": True,
        }

    difference = {"arm": "mdlm", "against": "udlm", "difference": -0.2, "stderr": 0.05, "interval": [-0.3, -0.1]}
    difference |= {"method": "paired over examples", "covers": "over 64 pairs", "winner": "mdlm", "p_adjusted": 0.01}
    shared = {"task": "likelihood", "unit": "bits/byte", "better": "lower", "protocol": {"split": "validation"}}
    shared |= {"differs": [], "comparable": True}
    told = difference | {"verdict": "mdlm is better than udlm by 0.2 bits/byte (95 % interval 0.1 to 0.3)"}
    figures = [
        shared
        | {"name": "bits_per_byte", "values": [value(2.4, 0.02, best=True), value(2.6, 0.03, best=False)]}
        | {"differences": [told]},
        shared | {"name": "nats_per_token", "values": [value(5.01, None, best=False), None], "differences": []},
        shared
        | {"name": "perplexity", "comparable": False, "values": [value(99.0, 1.0, best=False)] * 2, "differences": []}
        | {"differs": [{"what": "the tokenizer", "values": ["a" * 32, "b" * 32]}]},
    ]
    found = {"level": 0.95, "arms": arms, "figures": figures, "flags": ["parameters differ: mdlm 1, udlm 2"]}
    return found | {"verdict": "mdlm is better than udlm by 0.200; neither beats the byte 4-gram (2.37)"} | changes


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFacts]:
    home = tmp_path_factory.mktemp("home")
    folders = [make(home, NAMES[0]), make(home, NAMES[1], seed=2), make(home, NAMES[2], per_step=4096)]
    return [read_run(folder) for folder in folders]


@pytest.fixture(scope="module")
def html(runs) -> str:
    return render_comparison(comparison(), runs)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


# -- what stands on the page -----------------------------------------------------------------------


def test_the_verdict_comes_first_and_every_section_after_it(page, html):
    assert page.headings == ["Verdict", "Figures", "Loss", "Facts", "Samples", "Recipes"]
    verdict = html.index("mdlm is better than udlm by 0.200")
    assert verdict < html.index("neither beats the byte 4-gram") < html.index("<svg")


def test_the_page_needs_nothing_outside_itself(html):
    assert asks_for(html) == []
    assert dangling_ids(html) == []
    assert own_colours(html) == []


def test_figures_stand_beside_each_other_and_beside_trivial_values(page):
    values = "★ ≤ 2.400 ± 0.020 ≤ 2.600 ± 0.030"
    told = f"bits per byte bits/byte {values} byte 4-gram 2.37, byte trigram 2.97, token unigram 4.6"
    assert told in page.words
    assert "nats per token bits/byte ≤ 5.010 –" in page.words


def test_differences_tell_interval_verdict_and_what_they_range_over(page):
    assert "bits per byte A − B A is better −0.2 −0.3 to −0.1 over 64 pairs" in page.words


def test_different_quantities_are_told_with_what_differs_and_not_put_in_a_row(page):
    assert "perplexity : the tokenizer: A aaaaaaaa, B bbbbbbbb" in page.words
    assert "99.0" not in page.words


def test_flags_use_the_letters_that_stand_for_the_arms(page):
    assert "A mdlm seeds 1, 2 B udlm seed 1 What is not equal, or not sure: parameters differ: A 1, B 2" in page.words


def test_facts_that_differ_are_marked_and_equal_ones_are_not(page):
    assert "≠ parameters 1,000,000 2,000,000" in page.words
    assert " data python-docs python-docs" in page.words
    assert "≠ data" not in page.words
    assert "FLOPs of training, measured 4.00 × 10¹² 4.00 × 10¹²" in page.words


def test_each_run_is_told_with_its_own_verdict_and_figure(page):
    assert f"B {NAMES[2]} 1 finished 2.853 ± 0.012 on 512 rows of validation text learns: {NAMES[2]}" in page.words


def test_one_sample_of_each_arm_stands_character_by_character(page):
    assert page.boxes == [TEXT, TEXT]


def test_recipes_are_told_key_by_key_where_they_differ(page):
    assert "network.width 8192 4096" in page.words
    assert "training.steps" not in page.words


# -- curves ----------------------------------------------------------------------------------------


def test_curves_are_drawn_over_what_differs_only(runs):
    arms = arms_of(comparison(), runs)
    panels = loss_panels(arms)
    assert [panel.x_label for panel in panels] == [
        *("training step", "target tokens trained on", "FLOPs of training, measured"),
    ]
    assert [line.name for line in panels[0].lines] == ["A", "A", "B"]
    assert panels[1].lines[2].points[-1][0] == pytest.approx(1000 * 4096)
    assert panels[2].lines[0].points[-1][0] == pytest.approx(1000 * 8192 * 1e6)
    assert [panel.x_label for panel in loss_panels(arms[:1])] == ["training step"]


def test_a_run_without_a_count_of_operations_takes_the_axis_away_from_all(runs):
    without = [*runs[:2], RunFacts(**{**vars(runs[2]), "record": {}})]
    labels = [panel.x_label for panel in loss_panels(arms_of(comparison(), without))]
    assert labels == ["training step", "target tokens trained on"]


def test_a_run_that_was_never_validated_shows_its_training(runs):
    lines = tuple(line for line in runs[0].metrics if line["kind"] != "validation")
    only = [RunFacts(**{**vars(runs[0]), "metrics": lines})]
    points = loss_panels(arms_of({}, only))[0].lines[0].points
    assert len(points) == 100


def test_trivial_lines_are_drawn_only_where_all_runs_have_them_alike(runs):
    assert shared_trivial(arms_of({}, runs)) == TRIVIAL
    other = ({"kind": "trivial", "bits_per_byte": TRIVIAL | {"unigram": 4.0}}, *runs[0].metrics[1:])
    mixed = [runs[1], RunFacts(**{**vars(runs[0]), "metrics": other})]
    assert set(TRIVIAL) - set(shared_trivial(arms_of({}, mixed))) == {"unigram"}


# -- parts -----------------------------------------------------------------------------------------


def test_arms_without_a_comparison_are_the_runs_themselves(runs):
    arms = arms_of({"verdict": "nothing compares"}, runs)
    assert [(arm.letter, arm.name, arm.seeds) for arm in arms] == [
        *(("A", NAMES[0], "1"), ("B", NAMES[1], "2"), ("C", NAMES[2], "1")),
    ]
    assert [letter_of(k) for k in (0, 25, 26, 53)] == ["A", "Z", "A2", "B3"]


def test_only_whole_names_become_letters(runs):
    arms = arms_of({"arms": [{"name": "mdlm"}, {"name": "mdlm-moe"}, {"name": "mdlm seed 1"}]}, [])
    text = "mdlm 1, mdlm-moe 2, mdlm seed 1 3, mdlm_W8_2026 4, amdlm 5, 0123456789abcdef0123 6, 01234567890123456789 7"
    assert lettered(text, arms) == "A 1, B 2, C 3, mdlm_W8_2026 4, amdlm 5, 01234567 6, 01234567890123456789 7"


def test_two_figures_of_one_name_are_told_apart_by_what_differs():
    one = {"task": "quality", "name": "entropy", "protocol": {"steps": 20, "length": 64}}
    assert labels_of([one, one | {"protocol": {"steps": 50, "length": 64}}]) == [
        *("entropy (steps 20)", "entropy (steps 50)"),
    ]
    assert labels_of([one, one | {"task": "judged"}]) == ["entropy (quality)", "entropy (judged)"]
    levels = [{"t": (low + 0.1009) / 2, "t_low": low, "t_high": low + 0.0999} for low in (0.001, 0.1009)]
    assert labels_of([{"task": "levels", "name": "nats_at_level", "protocol": level} for level in levels]) == [
        *("nats at level (t 0.00–0.10)", "nats at level (t 0.10–0.20)"),
    ]


def test_a_figure_without_a_better_side_is_higher_or_lower_and_never_better():
    pair = {"arm": "mdlm", "against": "udlm", "difference": 0.5, "winner": None, "verdict": "x", "p_adjusted": 0.01}
    figure = {"name": "entropy", "better": None, "differences": [pair]}
    arms = arms_of(comparison(), [])
    assert difference_rows([figure], arms, level=0.95)[0][2][0] == "A is higher"
    unsure = pair | {"p_adjusted": 0.2, "verdict": "no difference can be told: mdlm − udlm = 0.5"}
    assert (
        difference_rows([figure | {"differences": [unsure]}], arms, level=0.95)[0][2][0] == "no difference can be told"
    )


def test_a_difference_that_is_also_paired_by_seed_is_told_both_ways():
    pair = {"arm": "mdlm", "against": "udlm", "difference": 0.5, "interval": [0.1, 0.9], "covers": "over 3 and 3 runs"}
    seeds = {"difference": 0.5, "interval": [0.4, 0.6], "covers": "over 3 pairs of equal seeds"}
    figure = {"name": "entropy", "differences": [pair | {"verdict": "x", "paired_by_seed": seeds}]}
    first, second = difference_rows([figure], arms_of(comparison(), []), level=0.95)
    assert (first[0], first[4], first[5][0]) == ("entropy", "+0.1 to +0.9", "over 3 and 3 runs")
    assert (second[0], second[4], second[5][0]) == ("", "+0.4 to +0.6", "over 3 pairs of equal seeds")


def test_only_figures_with_errors_are_drawn_with_intervals():
    compared = [figure for figure in comparison()["figures"] if figure["comparable"]]
    arms = arms_of(comparison(), [])
    assert len(forests(compared, arms)) == 2
    assert forests(compared[1:], arms) == []


def test_differences_are_written_with_their_sign():
    assert [compact_signed(v) for v in (0.012, -1.4, 0.0)] == ["+0.012", "−1.4", "0"]


def test_recipes_are_compared_by_every_key_that_any_has(runs):
    settings = [{"seed": 1, "novel": {"key": "x"}}, {"seed": 1}]
    changed = [RunFacts(**{**vars(run), "settings": own}) for run, own in zip(runs, settings, strict=False)]
    differing, alike = recipe_differences(arms_of({}, changed))
    assert (differing, alike) == ([("novel.key", ["x", "–"])], 1)


# -- odd input -------------------------------------------------------------------------------------


def test_runs_that_cannot_be_compared_are_shown_with_the_reason_first(runs):
    page = Page(render_comparison({"verdict": "nothing compares: the split differs"}, runs[:2]))
    assert page.words.index("nothing compares: the split differs") < page.words.index("Figures")
    assert "No figure of these runs can be compared." in page.words
    assert page.headings == ["Verdict", "Figures", "Loss", "Facts", "Samples", "Recipes"]
    assert len(page.boxes) == 2


def test_arms_of_several_runs_are_called_so_where_nothing_compares_too(runs):
    assert "<h1>2 arms beside each other</h1>" in render_comparison(comparison(figures=[]), runs)
    assert "<h1>2 runs beside each other</h1>" in render_comparison({"verdict": "nothing compares"}, runs[:2])


def test_text_from_records_cannot_become_markup(tmp_path):
    attack = "</p><script>alert(1)</script><img src=x onerror=alert(2)>$x$\"'"
    odd = comparison(verdict=attack, flags=[attack])
    odd["arms"] = [{"name": attack, "runs": [], "seeds": [attack], "facts": {"data": attack, "flops": attack}}] * 2
    for figure in odd["figures"]:
        figure |= {"name": attack, "unit": attack, "task": attack, "protocol": {attack: attack}}
        figure["values"] = [value and value | {"trivial": {attack: 2.5}} for value in figure["values"]]
        for pair in figure["differences"]:
            pair |= {"arm": attack, "verdict": attack, "covers": attack, "winner": None}
    folder = make(tmp_path, "a_1", verdict=attack, status=attack)
    write_lines(folder / "samples.jsonl", [samples()[0] | {"text": attack, "sampler": attack}])
    html = render_comparison(odd, [read_run(folder)])
    assert asks_for(html) == []
    assert not {"script", "img"} & {tag for tag, _ in Page(html).elements}


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"verdict": None, "arms": None, "figures": None, "flags": None, "level": "x"},
        {
            "arms": [None, {"runs": [1], "seeds": "x", "facts": []}],
            "figures": [None, {"comparable": True, "values": 3}],
        },
        {"figures": [{"comparable": True, "name": "a", "values": [None, 1], "differences": [{"interval": [None]}]}]},
        {"figures": [{"comparable": False, "name": "a", "differs": [{"what": 1, "values": None}]}]},
    ],
)
def test_an_odd_comparison_never_costs_the_page(odd):
    assert Page(render_comparison(odd, [])).headings[0] == "Verdict"


def test_a_page_is_not_written_where_there_is_no_folder_or_no_run(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        write_comparison({}, [], file=tmp_path / "absent" / "x.html")
    with pytest.raises(UserError, match="holds none of"):
        write_comparison({}, [tmp_path], file=tmp_path / "x.html")
    assert list(tmp_path.iterdir()) == []


def test_the_same_comparison_gives_the_same_bytes(html, runs):
    assert render_comparison(comparison(), runs) == html


def test_a_reason_that_several_figures_share_is_told_once():
    figures = [{"name": name, "differs": [{"what": "the split", "values": ["a", "b"]}]} for name in ("x_y", "z")]
    assert refusals(figures, arms_of(comparison(), [])) == [("x y, z", "the split: A a, B b")]


def test_rows_of_figures_follow_the_arms():
    rows = figure_rows(comparison()["figures"][:1], arms_of(comparison(), []))
    assert [cell[1] for cell in rows[0][1:3]] == ["value best", "plain"]
