import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_text import Page, asks_for, dangling_ids, own_colours
from synthetic_run import RUN_ID, TEXT, evaluations, make_run, metrics, record, trajectory, write_lines

from remask.errors import RunError, UserError
from remask.report import read_run, render_report, write_report

SECTIONS = [
    *(
        "Verdict",
        "Loss",
        "Health",
        "Denoising",
        "Samples",
        "Likelihood",
        "Sample quality",
        "Cost",
        "Evaluations",
        "Recipe",
        "Provenance",
    ),
]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a finished run."""
    return render_report(read_run(make_run(tmp_path_factory.mktemp("home") / RUN_ID)))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    """The same page, read."""
    return Page(html)


def rendered(folder: Path) -> Page:
    return Page(render_report(read_run(folder)))


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- what stands on the page ---------------------------------------------------------------------


def test_every_section_stands_in_its_order_with_the_verdict_first(page):
    assert page.headings == SECTIONS


def test_the_verdict_and_the_headline_come_before_any_figure(html):
    first_figure = html.index("<svg")
    assert html.index("0.96 below the byte bigram (3.81)") < first_figure
    assert html.index("2.853 ± 0.012 bits per byte") < first_figure


def test_the_headline_is_ranked_among_all_trivial_predictors(html):
    names = re.findall(r'<span class="name(?: own)?">([^<]*)', html)
    assert names == [
        *("uniform", "byte unigram", "token unigram", "byte bigram", "byte trigram", "this run"),
        *("byte 4-gram", "byte 5-gram"),
    ]


def test_the_headline_without_an_evaluation_is_the_last_validation(run_folder):
    (run_folder / "evaluations.jsonl").unlink()
    words = rendered(run_folder).words
    assert "at step 1000, on 64 rows of validation text, while training" in words
    assert "The run has not been evaluated for likelihood yet" in words


def test_the_loss_figure_names_every_trivial_line_inside_its_frame(page):
    words = page.words
    for label in ("byte unigram 4.71", "byte bigram 3.81", "byte trigram 2.97", "byte 4-gram 2.52"):
        assert label in words
    assert "Outside the frame: uniform (8.01)." in words


def test_samples_stand_on_the_page_character_by_character(page):
    boxes = page.boxes
    assert TEXT in boxes
    assert "  indented\n\ttabbed  and   spaced\n\n\nend" in boxes
    assert "def main():\n    return 0 & 1 < 2" in boxes


def test_the_denoising_picture_shows_the_final_text_and_a_frame_for_each_stored_step(page):
    stored = trajectory()
    assert page.boxes[0].replace("↵", "") == "".join(stored["tokens"])
    captions = re.findall(r"step \d+ of 64 · t = \d\.\d\d(?: · \d+ masked)?", page.words)
    assert len(captions) == len(stored["frames"])
    masked = stored["frames"][3]["tokens"].count(None)
    assert captions[3].endswith(f"{masked} masked")


def test_tables_give_value_error_unit_trivial_values_and_protocol(page):
    words = page.words
    assert "bits per byte 2.853 ± 0.012 bits/byte 8.010 4.620 4.710 3.810 2.970 2.520 2.410 512" in words
    assert "longest copy 9 tokens 14 16" in words
    assert "draws 8" in words


def test_cost_recipe_and_provenance_are_told(page):
    words = page.words
    for told in ("2 min 31 s", "54,130", "1,312,768", "870 MiB", "vocab_size: 1024", record()["git_commit"]):
        assert told in words
    assert "uncommitted changes yes" in words


# -- one file, safe and the same every time --------------------------------------------------------


def test_the_page_asks_for_nothing_outside_itself(html):
    assert asks_for(html) == []


@pytest.mark.parametrize(
    "added",
    [
        '<script src="x"></script>',
        '<img src="x">',
        "<style>@import 'x';</style>",
        '<p style="background: url(x.png)"></p>',
        '<a href="x">x</a>',
        "<p>https://example</p>",
        '<p onclick="x"></p>',
    ],
)
def test_what_would_be_fetched_or_run_is_noticed(html, added):
    assert asks_for(html.replace("</body>", f"{added}</body>")) != []


def test_text_from_a_model_or_a_file_cannot_become_markup(run_folder):
    attack = "</div><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'"
    write_lines(run_folder / "samples.jsonl", [{"text": attack, "sampler": attack, "prompt": "</div>"}])
    write_lines(run_folder / "evaluations.jsonl", [*evaluations(), {**evaluations()[1], "name": attack}])
    trivial = {"kind": "trivial", "step": 0, "bits_per_byte": {attack: 3.0}}
    write_lines(run_folder / "metrics.jsonl", [*metrics(), trivial, {"kind": "sample", "step": 1, "text": attack}])
    rewrite(run_folder / "trajectory.json", tokens=[attack] * len(trajectory()["tokens"]))
    rewrite(run_folder / "run.json", verdict=attack, conclusion=attack, error=attack, machine=attack, id=attack)
    (run_folder / "recipe.yaml").write_text(f"description: |\n  {attack}\n")
    page = rendered(run_folder)
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.headings == SECTIONS
    assert attack in page.boxes


def test_the_same_run_gives_the_same_bytes(run_folder, tmp_path):
    write_report(run_folder, file=tmp_path / "one.html")
    write_report(run_folder, file=tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_no_id_stands_twice_and_every_reference_finds_its_id(html):
    assert dangling_ids(html) == []


def test_figures_hold_no_colour_of_their_own(html):
    assert html.count("<svg") == 7  # loss and denoising in two widths; gradient, learning rate, speed
    assert own_colours(html) == []


def test_making_a_report_does_not_import_torch(run_folder, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom remask.report import write_report\n"
        f"write_report(Path({str(run_folder)!r}), file=Path({str(tmp_path / 'x.html')!r}))\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- runs that left little or broken files --------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("trajectory.json", "There is no denoising picture"),
        ("samples.jsonl", "The finished model has drawn no samples yet."),
        ("metrics.jsonl", "There is no loss curve"),
        ("evaluations.jsonl", "The samples have not been evaluated yet"),
        ("recipe.yaml", "holds no recipe.yaml"),
        ("run.json", "No verdict was recorded"),
    ],
)
def test_a_missing_file_costs_one_sentence(run_folder, page, missing, sentence):
    assert sentence not in page.words
    (run_folder / missing).unlink()
    without = rendered(run_folder)
    assert sentence in without.words
    assert without.headings == SECTIONS


def test_a_run_that_failed_before_its_first_step_says_so(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    failed = {
        "id": "ar_W8D1_1",
        "status": "failed",
        "step": 0,
        "steps": 50,
        "error": "the loss is not finite",
    }
    (folder / "run.json").write_text(json.dumps(failed))
    words = rendered(folder).words
    assert "The run failed after 0 of 50 steps. the loss is not finite" in words
    assert "the run was neither validated nor evaluated" in words


FILES = ["run.json", "metrics.jsonl", "samples.jsonl", "evaluations.jsonl", "trajectory.json"]


def cut_short(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_short_is_told_and_never_costs_the_report(run_folder, name):
    path = run_folder / name
    path.write_bytes(cut_short(path.read_bytes()))
    page = rendered(run_folder)
    assert page.headings == SECTIONS
    assert f"{name} is torn" in page.words or f"1 line of {name} could not be understood" in page.words


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut_short, id="cut short"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"\x00" * 4096, id="zeros"),
        pytest.param(lambda data: data[:500] + b"\xff\xfe" + data[502:], id="no UTF-8"),
        pytest.param(lambda data: b'{"kind": "train", "name": 3, "text": [], "tokens": {}}\n', id="odd types"),
        pytest.param(lambda data: b"[1, 2]\n3\nnull\n", id="no objects"),
        pytest.param(lambda data: b"[" * 100_000, id="deep"),
    ],
)
def test_broken_files_never_cost_the_report(run_folder, damage):
    for name in FILES:
        path = run_folder / name
        path.write_bytes(damage(path.read_bytes()))
    assert rendered(run_folder).headings == SECTIONS


def test_a_torn_last_line_is_told_and_the_rest_is_shown(run_folder):
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 1010, "lo')
    words = rendered(run_folder).words
    assert "1 line of metrics.jsonl could not be understood and is left out." in words
    assert "byte bigram 3.81" in words


def test_numbers_that_are_none_break_nothing(run_folder):
    odd = [float("nan"), float("inf"), None, "3", True, 10**400, [1]]
    lines = [{"kind": "train", "step": 10 + k, "bits_per_byte": value} for k, value in enumerate(odd)]
    lines += [{"kind": "train", "step": value, "bits_per_byte": 3.0} for value in odd]
    (run_folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines + metrics()))
    measured = [{**evaluations()[1], "value": v, "stderr": v, "n": v, "trivial": {"uniform": v}} for v in odd]
    write_lines(run_folder / "evaluations.jsonl", measured)
    rewrite(run_folder / "run.json", **dict.fromkeys(("steps", "parameters", "trivial", "verdict"), odd[0]))
    page = rendered(run_folder)
    assert "not finite" in page.words
    assert page.headings == SECTIONS


def test_a_single_training_step_is_drawn(run_folder):
    write_lines(run_folder / "metrics.jsonl", [{"kind": "train", "step": 1, "bits_per_byte": 8.0}])
    words = rendered(run_folder).words
    assert "training (smoothed)" in words
    assert "The run was not validated while it trained." in words


def test_characters_that_no_page_can_carry_are_shown_by_a_sign(run_folder):
    write_lines(run_folder / "samples.jsonl", [{"text": "a\x00b\x1bc\ud800d\re\u00e9🙂"}])
    assert "a␀b␛c\ufffdd␍eé🙂" in rendered(run_folder).boxes
    render_report(read_run(run_folder)).encode("utf-8")


# -- a user's mistakes and the machine's --------------------------------------------------------------


def test_a_folder_that_is_no_run_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"holds none of run\.json"):
        write_report(tmp_path, file=tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_run(run_folder, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        write_report(run_folder / "run.json", file=tmp_path / "report.html")


def test_a_page_needs_an_existing_folder_and_a_file_name(run_folder, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        write_report(run_folder, file=tmp_path / "absent" / "report.html")
    with pytest.raises(UserError, match="is a folder; give the page's file name"):
        write_report(run_folder, file=tmp_path)


def test_a_failed_write_keeps_the_older_page_and_leaves_nothing_behind(run_folder, tmp_path, monkeypatch):
    file = tmp_path / "out" / "report.html"
    file.parent.mkdir()
    file.write_text("older")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_report(run_folder, file=file)
    assert [path.read_text() for path in file.parent.iterdir()] == ["older"]


def test_the_page_of_a_model_without_a_likelihood_asks_for_none_and_for_no_samples(tmp_path):
    folder = make_run(tmp_path / RUN_ID)
    lines = [{"kind": "trivial", "step": 0, "matching_nats": {"equal guess": 4.16}}]
    lines += [{"kind": "validation", "step": 9, "matching_nats": 2.0, "matching_nats_trivial": 4.16, "stderr": 0.1}]
    write_lines(folder / "metrics.jsonl", lines)
    for name in ("evaluations.jsonl", "samples.jsonl"):
        (folder / name).unlink()
    page = rendered(folder)
    assert not {"Likelihood", "Sample quality"} & set(page.headings)
    assert "Reconstruction" in page.headings
    assert "draws no text of its own" in page.words
    assert "has drawn no samples yet" not in page.words
