"""`remask log`: the experiment log through the command, read back by a Markdown parser that is not ours."""

import subprocess
import sys

import pytest
from markdown_it import MarkdownIt

from cli.command import refused, succeeds
from comparison.recorded import EXACT, LIKELIHOOD, PROVENANCE, SAMPLED, TRIVIAL, Home
from remask.evaluation.measurement import Measurement

PARSER = MarkdownIt("commonmark").enable("table")
NASTY = "a | b\n\n| c |\r\n<b>bold</b> `code` [x](http://y) *z* _i_ \\| ends with \\"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr("remask.runs.evaluations.collect_provenance", lambda: PROVENANCE)
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


def tables(markdown):
    """Each table as rows of cells, as a parser for GitHub's Markdown sees them: (text, bold parts)."""
    found, row, bold = [], None, False
    for token in PARSER.parse(markdown):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            row = []
            found[-1].append(row)
        elif token.type == "inline" and row is not None:
            text, marked = "", []
            for child in token.children or []:
                bold = (bold or child.type == "strong_open") and child.type != "strong_close"
                text += child.content
                if bold and child.content:
                    marked.append(child.content)
            row.append((text, marked))
        elif token.type == "table_close":
            row = None
    return found


def rows(markdown, place=0):
    """The rows of a table as heading → text."""
    head, *body = tables(markdown)[place]
    return [dict(zip((text for text, _ in head), (text for text, _ in row), strict=True)) for row in body]


def marked(markdown, place=0):
    """What is bold in a table, row by row."""
    return [[part for _, bold in row for part in bold] for row in tables(markdown)[place][1:]]


def log(*options):
    return succeeds("log", *options).out


def likelihood(home, run, value, *, protocol=LIKELIHOOD, **facts):
    home.judge(run, value, protocol=protocol, **facts)
    home.registry.update(run, headline={"bits_per_byte": value}, trivial=dict(TRIVIAL))


# ── what it says ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_has_all_that_its_record_knows_beside_its_trivial_value(home):
    home.run(
        "mdlm_D64_1",
        architecture="transformer D64 L2 H2, bidirectional",
        extra_losses=["remask task ×0.5"],
        tokens_per_second=6280.4,
        device="cuda:0 (NVIDIA H100)",
        git_tag="v1",
        git_dirty=True,
        links={"wandb": "https://wandb.example/x"},
        lineage=[{"how": "initialised", "from": "ar_1/model"}],
        verdict="learns: 2.50 bits/byte",
        conclusion="masking is enough",
        tags=["study:s"],
    )
    likelihood(home, "mdlm_D64_1", 2.5)
    home.judge("mdlm_D64_1", 31.0, name="effective_rank", unit="dimensions", task="concepts", protocol={}, trivial={})
    (row,) = rows(log())
    assert row == {
        "date": "2026-11-21 08:00",
        "run": "mdlm_D64_1",
        "status": "finished",
        "family": "token",
        "architecture": "transformer D64 L2 H2, bidirectional",
        "parameters": "1,000,000",
        "data": "python-docs",
        "tokenizer": "bpe 4096",
        "seed": "1",
        "from": "initialised from ar_1/model",
        "machine": "box, NVIDIA H100",
        "epochs": "2",
        "tokens": "1,000,000",
        "extra losses": "remask task ×0.5",
        "task loss": "≤ 2.500 bits/byte (unigram 2.900, 2-gram 3.800)",
        "effective rank": "31",
        "speed": "6,280 tokens/s",
        "link": "wandb",
        "git": "v1 c0ffee0 (uncommitted changes)",
        "verdict": "learns: 2.50 bits/byte",
        "tags": "study:s",
        "conclusion": "masking is enough",
    }
    assert "[wandb](<https://wandb.example/x>)" in log()


def test_an_evaluation_has_its_source_machine_scores_and_conclusion(home):
    home.run("a")
    likelihood(home, "a", 2.5, step=50, checkpoint="a/checkpoints/step-50", machine="box (Linux)", device="cpu")
    (record,) = home.registry.evaluation_records()
    home.registry.update_evaluation(record.reference, conclusion="not yet", seconds=12.3)
    (row,) = rows(log(), 1)
    assert row["evaluation"] == record.reference
    assert (row["kind"], row["source"]) == ("likelihood", "a/checkpoints/step-50 (step 50)")
    assert (row["machine"], row["seconds"], row["conclusion"]) == ("box, cpu", "12.3", "not yet")
    assert row["scores"] == "bits_per_byte ≤ 2.500 bits/byte (unigram 2.900, 2-gram 3.800)"
    assert row["protocol"] == "split validation, rows 200, row_length 64, draws 8"


def test_downstream_scores_stand_beside_trivial_values_and_peoples_text(home):
    home.run("a")
    beside = {"random guess": 0.01, "most common response": 0.05}
    home.judge("a", 0.25, name="answers_right", unit="share", task="answers", trivial=beside, protocol=SAMPLED)
    beside = {"held-out text": 20.0, "byte 1-gram samples": 900.0}
    home.judge("a", 35.0, name="judged_perplexity", unit="per token", task="judged", trivial=beside, protocol=SAMPLED)
    (row,) = rows(log())
    assert row["scores"] == (
        "answers_right 0.250 (most common response 0.050); "
        "judged_perplexity 35.000 per token (held-out text 20.000, byte 1-gram samples 900.000)"
    )


def test_many_settings_of_one_name_are_told_as_a_range(home):
    home.run("a")
    figures = [
        Measurement(
            name="seconds_per_sample",
            value=steps / 100,
            unit="s",
            n=8,
            stderr=None,
            trivial={},
            protocol={"steps": steps},
        )
        for steps in (20, 50, 100)
    ]
    with home.registry.evaluating("a", task="steps") as judged:
        judged.keep(figures)
    (row,) = rows(log(), 1)
    assert row["scores"] == "seconds_per_sample 0.200 to 1.000 (steps 20 to 100)"


def test_a_range_stands_beside_the_trivial_values_of_both_ends(home):
    home.run("a")
    levels = [
        Measurement(
            name="nats_at_level",
            value=value,
            unit="nats/token per unit time",
            n=8,
            stderr=None,
            trivial={"uniform": 7.0, "unigram": unigram},
            protocol=protocol,
        )
        for value, unigram, protocol in ((1.0, 5.5, {"levels": 2, "t": 0.25, "x": 1}), (5.0, 5.7, {"t": 0.75}))
    ]
    with home.registry.evaluating("a", task="levels") as judged:
        judged.keep(levels)
    (row,) = rows(log(), 1)
    assert row["scores"] == "nats_at_level 1.000 to 5.000 (t 0.25 to 0.75; unigram 5.500 to 5.700)"


def test_mauve_stands_beside_other_text_and_the_hardest_trivial_samples(home):
    home.run("a")
    beside = {"other held-out text": 0.95, "byte 1-gram samples": 0.01, "byte 3-gram samples": 0.2}
    home.judge("a", 0.5, name="mauve", unit="0 to 1", task="mauve", stderr=None, trivial=beside, protocol=SAMPLED)
    assert rows(log())[0]["scores"] == "mauve 0.500 0 to 1 (other held-out text 0.950, byte 3-gram samples 0.200)"


def test_a_run_without_figures_still_has_its_row(home):
    home.run("dead", status="killed", step=3, tokens_seen=0, error="the disk is full")
    (row,) = rows(log())
    assert (row["status"], row["verdict"]) == ("killed at 3/100", "the disk is full")
    assert "task loss" not in row
    assert "tokens" not in row


def test_an_empty_home_says_so(home):
    text = log()
    assert tables(text) == []
    assert "Training runs: 0" in text
    assert "None yet: `remask train` starts one." in text


def test_columns_that_are_empty_everywhere_are_left_out(home):
    home.run("a", conclusion=None, links={})
    assert {"link", "conclusion", "extra losses", "effective rank"}.isdisjoint(rows(log())[0])
    home.run("b", conclusion="learned")
    assert [row["conclusion"] for row in rows(log())] == ["learned", ""]


# ── what is marked ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_of_comparable_runs_is_bold_and_what_that_means_is_said(home):
    for name, value in (("a", 2.5), ("b", 2.4), ("c", 2.6)):
        home.run(name)
        likelihood(home, name, value)
    text = log()
    assert marked(text) == [[], ["2.400"], []]  # newest first: c, b, a
    assert marked(text, 1) == [[], ["2.400"], []]
    assert text.count("**Bold** is the best of a group") == 2
    assert "here 1 group." in text


def test_nothing_is_bold_where_nothing_compares(home):
    for name, split in (("a", "validation"), ("b", "test")):
        home.run(name)
        likelihood(home, name, 2.5, protocol=LIKELIHOOD | {"split": split})
    text = log()
    assert marked(text) == marked(text, 1) == [[], []]
    assert "Bold" not in text


def test_each_group_has_its_own_best(home):
    for name, value, split in (
        ("a", 2.5, "validation"),
        ("b", 2.4, "validation"),
        ("c", 2.3, "test"),
        ("d", 2.2, "test"),
    ):
        home.run(name)
        likelihood(home, name, value, protocol=LIKELIHOOD | {"split": split})
    assert marked(log()) == [["2.200"], [], ["2.400"], []]
    assert "here 2 groups." in log()


def test_the_same_weights_judged_twice_are_no_competition(home):
    home.run("a")
    likelihood(home, "a", 2.5)
    likelihood(home, "a", 2.5)
    assert marked(log(), 1) == [[], []]


def test_a_headline_without_its_measurement_is_never_marked(home):
    for name, value in (("a", 2.5), ("b", 2.4)):
        home.run(name, headline={"bits_per_byte": value}, trivial=dict(TRIVIAL))
    home.judge("b", 2.39)
    home.judge("a", 2.49)
    text = log()
    assert [row["task loss"] for row in rows(text)] == [
        "≤ 2.400 bits/byte (unigram 2.900, 2-gram 3.800)",
        "≤ 2.500 bits/byte (unigram 2.900, 2-gram 3.800)",
    ]
    assert marked(text) == [[], []]


def test_a_headline_of_a_run_that_was_never_measured_is_a_bound_if_its_objective_is(home):
    for objective in ("next token", "likelihood bound, masking", None):
        home.run(
            f"{objective}".partition(" ")[0], objective=objective, status="killed", headline={"bits_per_byte": 3.0}
        )
    shown = {row["run"]: row["task loss"] for row in rows(log())}
    assert shown == {"next": "3.000 bits/byte", "likelihood": "≤ 3.000 bits/byte", "None": "3.000 bits/byte"}


def test_an_exact_figure_and_a_bound_compare_and_the_bound_is_shown_as_one(home):
    home.run("ar")
    likelihood(home, "ar", 2.0, protocol=EXACT)
    home.run("mdlm")
    likelihood(home, "mdlm", 2.5)
    text = log()
    assert [row["task loss"].split(" bits")[0] for row in rows(text)] == ["≤ 2.500", "2.000"]
    assert marked(text) == [[], ["2.000"]]


def test_figures_without_a_better_side_are_never_marked(home):
    for name, value in (("a", 0.5), ("b", 0.9)):
        home.run(name)
        home.judge(name, value, name="word_share", unit="share", task="quality", protocol=SAMPLED)
    assert marked(log()) == [[], []]


# ── that it stays a table, and the same one ────────────────────────────────────────────────────────────────────────


def test_no_text_of_a_record_breaks_the_table(home):
    home.run("a", conclusion=NASTY, tags=["x|y"], links={"a|b": "javascript:alert(1)", "c": "https://e.org/a|b"})
    home.run("b|`c", recipe="b", conclusion="plain")
    likelihood(home, "a", 2.5)
    text = log()
    head, *body = tables(text)[0]
    assert [len(row) for row in body] == [len(head)] * 2
    by_run = {row["run"]: row for row in rows(text)}
    assert set(by_run) == {"a", "b|'c"}
    assert by_run["a"]["conclusion"] == " ".join(NASTY.split())
    assert by_run["a"]["tags"] == "x|y"
    assert "javascript:" not in text
    assert len(tables(text)) == 2
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 + 2 + 1


def test_the_same_records_give_the_same_bytes(home):
    home.run("a", finished="2026-11-21T09:00:00+00:00")
    likelihood(home, "a", 2.5)
    first = log()
    assert first == log()
    newest = max(record.finished for record in home.registry.evaluation_records())
    assert f"the newest of {newest}" in first
    assert str(home.registry.home) in first
    assert "Do not edit" in first


def test_write_replaces_the_file_in_one_step_and_prints_its_name(home, tmp_path):
    home.run("a")
    file = tmp_path / "log.md"
    file.write_text("old")
    assert succeeds("log", "--write", file).out == f"{file}\n"
    assert file.read_text() == log()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "log.md"]


def test_a_place_that_cannot_be_written_is_refused_in_one_line(home, tmp_path):
    assert "is a folder" in refused("log", "--write", tmp_path)
    assert "there is no folder" in refused("log", "--write", tmp_path / "none" / "log.md")


def test_json_has_one_object_a_row_and_names_what_is_best(home):
    for name, value in (("a", 2.5), ("b", 2.4)):
        home.run(name)
        likelihood(home, name, value)
    objects = succeeds("log", "--json").objects
    assert [each["table"] for each in objects] == ["runs", "runs", "evaluations", "evaluations"]
    assert objects[0]["run"] == "b"
    assert [each["best"] for each in objects] == [["2.400"], [], ["2.400"], []]
    assert "conclusion" not in objects[0]


# ── which runs ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["c", "b", "a"]),
        (["--recipe", "mdlm"], ["a"]),
        (["--recipe", "mdlm", "--recipe", "ar"], ["c", "a"]),
        (["--family", "concept"], ["b"]),
        (["--tag", "x"], ["b", "a"]),
        (["--tag", "x", "--tag", "y"], ["b"]),
        (["--status", "killed"], ["c"]),
        (["--since", "2026-11-22"], ["c", "b"]),
        (["--since", "2026-11-22T00:00:01+00:00"], ["c"]),
        (["--recipe", "mdlm", "--status", "killed"], []),
    ],
)
def test_runs_are_chosen_by_what_they_have(home, options, expected):
    home.run("a", recipe="mdlm", tags=["x"], created="2026-11-21T00:00:00+00:00")
    home.run("b", recipe="udlm", tags=["x", "y"], family="concept", created="2026-11-22T00:00:00+00:00")
    home.run("c", recipe="ar", status="killed", created="2026-11-23T00:00:00+00:00")
    home.judge("a", 2.5)
    objects = succeeds("log", "--json", *options).objects
    assert [each["run"] for each in objects if each["table"] == "runs"] == expected
    assert sum(each["table"] == "evaluations" for each in objects) == int("a" in expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "mdln"], "--recipe mdln: no run has it; did you mean 'mdlm'?"),
        (["--tag", "x"], "--tag x: no run has it; there are none."),
        (["--status", "finishd"], "did you mean 'finished'?"),
        (["--since", "yesterday"], "--since yesterday: give a date as 2026-02-23"),
    ],
)
def test_a_choice_that_no_run_can_meet_is_refused(home, options, message):
    home.run("a", recipe="mdlm")
    assert message in refused("log", *options)


def test_the_log_of_some_runs_says_which(home):
    home.run("a", recipe="mdlm")
    assert "(recipe mdlm, since 2026-01-01)" in log("--recipe", "mdlm", "--since", "2026-01-01")


def test_nothing_heavy_is_imported(home, tmp_path):
    home.run("a")
    likelihood(home, "a", 2.5)
    code = (
        "import sys; from remask.cli import main\n"
        "try: main(['log', '--write', sys.argv[1]])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "log.md"], check=True, timeout=60)
    assert (tmp_path / "log.md").read_text() == log()
