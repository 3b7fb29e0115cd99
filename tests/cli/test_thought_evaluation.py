"""`remask evaluate --task thought` and what `health` and the report say of a run that it was carried out on."""

from command import newest, refused, succeeds

DRAWN = {"repetition", "id_0_share", "distinct_over_questions", "distinct_over_noise"}
BY_LEVEL = {"clean_error", "skill", "token_accuracy", "rounding_gain"}


def evaluated(*options):
    return succeeds("evaluate", "last", "--task", "thought", "--levels", "2", "--count", "8", *options)


def test_a_naive_run_is_found_out(thought):
    home = thought("thought-naive")
    done = evaluated()
    assert "← no skill" in done.out
    assert "NO SKILL over a linear filter, which has 0, in 2 of 2 ranges of t" in done.out
    assert "NO USE OF THE QUESTION" in done.out
    record, folder = newest(home)
    figures = list(folder.evaluations())
    assert {line["name"] for line in figures} == BY_LEVEL | DRAWN | {"decode_oracle", "question_gap"}
    assert all(line["n"] and line["protocol"]["split"] == "test" for line in figures)
    assert all(line["trivial"] for line in figures if line["name"] != "distinct_over_noise")
    health = succeeds("health", "last").out
    assert not health.startswith(f"{record.id}: learns")
    for name in ("no skill over a linear filter", "question not read"):
        assert f"- {name}: " in health
    assert "no skill over a linear filter" in succeeds("show", "last").out
    succeeds("report", "last")
    page = folder.report_path.read_text(encoding="utf-8")
    assert ">Thought</h2>" in page
    assert "No skill over a linear filter at any t." in page


def test_memory_is_measured_where_there_is_one(thought):
    thought("thought-cpu")
    names = {line["name"] for line in evaluated("--json").objects}
    assert names == BY_LEVEL | DRAWN | {"decode_oracle", "question_gap", "memory_gain"}
    assert "2 --rows or more" in refused("evaluate", "last", "--task", "thought", "--rows", "1")
    assert "Give --count 8 or more" in refused("evaluate", "last", "--task", "thought", "--count", "4")


def test_another_model_has_no_thoughts(trained):
    assert "this model draws no thoughts" in refused("evaluate", "last", "--task", "thought")
