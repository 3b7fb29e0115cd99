"""A model is asked, its answers are read, and two models are told apart: on responses that are known beforehand."""

import math

import pytest
import torch

from remask.config.build import build_model
from remask.config.schema import Recipe
from remask.data.documents import Pair
from remask.errors import UserError
from remask.evaluation.measurement import identity_of
from remask.reasoning_tasks.exams import Exam
from remask.reasoning_tasks.measuring import Examinee, differences, measure, questions_trained_on
from remask.reasoning_tasks.responses import Response, respond, ways_of
from remask.reasoning_tasks.tasks import reasoning_task
from remask.reasoning_tasks.wording import wording_of
from remask.tokenizers import ByteTokenizer

QUESTIONS = tuple(Pair(prompt=f"{k}+1?", response=f"{k}+1={k + 1} #### {k + 1}") for k in range(40))
EXAMPLES = (Pair(prompt="7+7?", response="#### 14"), Pair(prompt="8+8?", response="#### 16"))
BYTES = ByteTokenizer()


def exam(questions=QUESTIONS, examples=(), common="#### 5"):
    identity = identity_of(*[pair.prompt for pair in questions])
    return Exam(
        task=reasoning_task("gsm8k"),
        split="test",
        questions=questions,
        examples=examples,
        common=common,
        identity=identity,
    )


def recipe(**data) -> Recipe:
    network = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}
    source = {"source": "arithmetic", "length": 48, **data}
    return Recipe.model_validate({"name": "tiny", "data": source, "network": network, "sampling": {"steps": 2}})


@pytest.fixture(scope="module")
def model():
    return build_model(recipe(), BYTES, device=torch.device("cpu"))


def saying(answer):
    """A way of responding: what `answer` makes of a question."""

    def way(prompt, seed):
        del seed
        rows = zip(prompt.ids.tolist(), prompt.fixed.sum(1).tolist(), strict=True)
        asked = [BYTES.decode(row[:size]) for row, size in rows]
        return [Response(text=answer(question), ended=True) for question in asked]

    return way


def right(question):
    return f"#### {int(question.rpartition('Question: ')[2].partition('+')[0]) + 1}"


def asked(model, answer, *, of=None, which=None, **ways):
    examinee = Examinee(model=model, recipe=of or recipe(), ways={"text": saying(answer), **ways})
    told = []
    found = measure(examinee, which or exam(), trained_on=0, watch=lambda way: lambda *done: told.append((way, *done)))
    return {way: {figure.name: figure for figure in figures} for way, figures in found.items()}, told


def test_right_answers_are_all_right_and_stand_beside_what_needs_no_network(model):
    found, told = asked(model, right)
    strict, flexible = found["text"]["accuracy_strict"], found["text"]["accuracy_flexible"]
    assert (strict.value, flexible.value, strict.n) == (1.0, 1.0, 40)
    assert 0 < strict.stderr < 0.1
    assert strict.trivial == {"majority answer": 1 / 40, "last number of the question": 1 / 40}  # 0+1 = 1
    assert found["text"]["answers_equal"].value == 0
    assert found["text"]["answers_ended"].value == 1
    assert strict.protocol["answer"] == "text"
    assert (strict.protocol["shots"], strict.protocol["questions_trained_on"]) == (0, 0)
    assert told == [("text", 32, 40), ("text", 40, 40)]


def test_an_answer_without_a_mark_is_right_by_the_flexible_way_alone(model):
    found, _ = asked(model, lambda question: f"it is {right(question)[5:]}.")
    assert found["text"]["accuracy_strict"].value == 0
    assert found["text"]["accuracy_flexible"].value == 1


def test_each_way_of_responding_has_figures_of_its_own(model):
    found, _ = asked(model, right, random=saying(lambda question: "#### 5"))
    assert found["text"]["accuracy_strict"].value == 1
    assert found["random"]["accuracy_strict"].value == 1 / 40
    assert found["random"]["accuracy_strict"].protocol["answer"] == "random"


def test_a_question_without_a_place_for_an_answer_is_wrong_and_counted(model):
    long = Pair(prompt="1" * 48, response="#### 2")
    found, _ = asked(model, lambda question: "#### 2", which=exam((long, *QUESTIONS[:3])))
    assert found["text"]["accuracy_strict"].value == 0.25
    assert found["text"]["accuracy_strict"].protocol["prompts_too_long"] == 1
    with pytest.raises(UserError, match="no question of gsm8k leaves a place for an answer in a sample of 48 tokens"):
        asked(model, right, which=exam((long,)))


def test_examples_stand_before_each_question_and_end_its_answer(model):
    seen = []

    def answer(question):
        seen.append(question)
        return f"{right(question.rpartition(chr(10))[2])}\n\n9+9?"

    found, _ = asked(model, answer, which=exam(QUESTIONS[:2], EXAMPLES[:1]))
    assert seen == ["7+7?#### 14\n\n0+1?", "7+7?#### 14\n\n1+1?"]
    assert found["text"]["accuracy_flexible"].value == 1, "what follows a gap answers another question"


def test_examples_that_leave_no_place_are_refused_with_numbers(model):
    several = exam(QUESTIONS[:2], (*EXAMPLES, *EXAMPLES))
    message = r"--shots 4: with so many examples 2 of 2 questions of gsm8k .* \(up to 56 tokens, and a sample has 48\)"
    with pytest.raises(UserError, match=message):
        asked(model, right, which=several)


def test_a_model_of_plain_text_is_asked_as_the_harness_asks_and_cut_at_a_gap(model):
    plain = recipe(source="python-docs")
    assert (
        wording_of(plain).prompt("1+1?", EXAMPLES[:1]) == "Question: 7+7?\nAnswer: #### 14\n\nQuestion: 1+1?\nAnswer:"
    )
    found, _ = asked(model, lambda question: f" {right(question)}\n\nQuestion: 3?", of=plain)
    assert found["text"]["accuracy_flexible"].value == 1
    files = {"source": "a.jsonl", "prompt_key": "question", "response_key": "answer", "separator": "\n"}
    assert wording_of(recipe(**files)).prompt("1+1?", []) == "1+1?\n"


def test_any_model_is_asked_through_its_own_sampler_with_the_same_noise_every_time(model):
    ways = ways_of(model, recipe())
    assert list(ways) == ["text"]
    prompts = [pair.prompt for pair in QUESTIONS[:3]]
    drawn = [respond(model, prompts, ways["text"], length=12, seed=4, watch=lambda *done: None) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != respond(model, prompts, ways["text"], length=12, seed=5, watch=lambda *done: None)


@pytest.mark.parametrize(("asked", "at_once", "sizes"), [(5, 2, [2, 3]), (4, 2, [2, 2]), (5, 4, [5]), (1, 2, [1])])
def test_no_question_is_alone_in_its_batch_unless_there_is_no_other(model, asked, at_once, sizes):
    seen = []

    def way(prompt, seed):
        seen.append(len(prompt.ids))
        return [Response(text="", ended=True)] * len(prompt.ids)

    prompts = [pair.prompt for pair in QUESTIONS] * 5
    told = []
    found = respond(
        model, prompts[:asked], way, length=12, seed=4, watch=lambda *done: told.append(done), at_once=at_once
    )
    assert seen == sizes
    assert None not in found
    assert told[-1] == (asked, asked)


def test_a_thought_is_read_and_answers_are_written_behind_it_behind_noise_and_behind_another():
    thinking = {
        "process": {"kind": "gaussian"},
        "network": {"kind": "thought", "width": 16, "layers": 1, "heads": 2, "latent_width": 8},
        "data": {"source": "arithmetic", "length": 24, "pad": "end"},
        "sampling": {"sampler": "ddim", "steps": 2},
    }
    prompts, nobody = [pair.prompt for pair in QUESTIONS[:3]], lambda *done: None
    for weight, names in ((0, ["trace"]), (1, ["trace", "decoded", "decoded behind noise"])):
        objective = {"kind": "thought", **({"answer_weight": weight, "answer_mark": "####"} if weight else {})}
        own = Recipe.model_validate({"name": "tiny", "objective": objective, **thinking})
        thinker = build_model(own, BYTES, device=torch.device("cpu"))
        ways = ways_of(thinker, own)
        assert list(ways)[:3] == names
        for name, way in ways.items():
            found = [respond(thinker, prompts, way, length=24, seed=4, watch=nobody) for _ in range(2)]
            assert found[0] == found[1], name
            if name != "trace":
                assert all(response.text.startswith("####") for response in found[0])
    assert list(ways)[3] == "decoded behind another thought"
    with pytest.raises(UserError, match="ask two or more"):  # its own thought would be called another's
        respond(thinker, prompts[:1], ways["decoded behind another thought"], length=24, seed=4, watch=nobody)


def test_the_difference_of_two_models_is_paired_over_questions(model):
    some, _ = asked(model, lambda question: right(question) if "0" in question else "#### 5")
    all_of_them, _ = asked(model, right)
    found = {m.name: m for m in differences(all_of_them["text"].values(), [*some["text"].values()], against="other")}
    strict = found["accuracy_strict_difference"]
    # right by both: 4 questions with a 0, and 4+1; the others by one alone
    assert strict.value == pytest.approx(35 / 40)
    spread = [0.0] * 5 + [1.0] * 35
    variance = sum((value - strict.value) ** 2 for value in spread) / 39
    assert strict.stderr == pytest.approx(math.sqrt(variance / 40))
    assert strict.protocol["against"] == "other"
    assert (strict.protocol["accuracy"], strict.protocol["accuracy_against"]) == (1.0, 5 / 40)
    assert set(found) == {"accuracy_strict_difference", "accuracy_flexible_difference"}


def test_equal_models_differ_by_nothing_and_one_question_tells_nothing(model):
    found, _ = asked(model, right)
    (strict, _) = differences(found["text"].values(), [*found["text"].values()], against="itself")
    assert (strict.value, strict.stderr) == (0.0, 0.0)
    one, _ = asked(model, right, which=exam(QUESTIONS[:1]))
    with pytest.raises(UserError, match="at least two questions"):
        differences(one["text"].values(), [*one["text"].values()], against="itself")


def test_questions_of_the_training_text_are_counted(tmp_path):
    lines = [f"{pair.prompt.upper()} ||{pair.response}" for pair in QUESTIONS[:30]]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (tmp_path / "valid.txt").write_text("other||1\n")
    files = {"prompt_key": "prompt", "response_key": "response", "separator": "\n"}
    own = recipe(source=str(tmp_path / "train.txt"), validation=str(tmp_path / "valid.txt"), **files)
    assert questions_trained_on(exam(), own, cache=tmp_path / "cache") == 30
    assert questions_trained_on(exam(), recipe(source="python-docs"), cache=tmp_path / "cache") is None
    (tmp_path / "train.txt").unlink()
    assert questions_trained_on(exam(), own, cache=tmp_path / "cache") is None
