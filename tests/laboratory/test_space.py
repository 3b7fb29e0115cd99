"""What a study varies: lists, ranges, and mistakes in them that are found before anything starts."""

import pytest

from remask.config.load import load_recipe
from remask.errors import UserError
from remask.laboratory.ablations import arm_name, read_seeds
from remask.laboratory.search import planned
from remask.laboratory.space import Choice, Span, check, corners, from_json, read_over, split_list


def read(*words: str):
    return read_over(words, recipe=load_recipe("mdlm"))


def test_lists_keep_their_texts_and_a_comma_in_brackets_or_quotes_belongs_to_its_value():
    assert read("training.betas=[0.9, 0.95],[0.9,0.99]") == [
        Choice(key="training.betas", values=("[0.9, 0.95]", "[0.9,0.99]"))
    ]
    assert split_list("a,'b,c',{d: [1,2], e: 3},null") == ["a", "'b,c'", "{d: [1,2], e: 3}", "null"]


def test_a_range_is_whole_where_its_key_is_and_comes_back_from_json_as_it_was():
    rate, width = read("training.learning_rate=1..2:log", "network.width=64..256")
    assert rate == Span(key="training.learning_rate", low=1.0, high=2.0, log=True, whole=False)
    assert width == Span(key="network.width", low=64.0, high=256.0, log=False, whole=True)
    assert [from_json(each.to_json()) for each in (rate, width)] == [rate, width]
    assert (rate.written(0.1 + 0.2), width.written(65.0)) == ("0.30000000000000004", "65")


def test_all_combinations_of_values_and_ends_are_made():
    found = list(corners(read("network.layers=1,2", "training.learning_rate=1e-4..1e-2")))
    assert [tuple(each.values()) for each in found] == [
        *(("1", "0.0001"), ("1", "0.01")),
        *(("2", "0.0001"), ("2", "0.01")),
    ]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("training.steps", "write KEY=a,b,c or KEY=LOW..HIGH"),
        ("training.steps=1,,2", "empty value"),
        ("training.steps=5,5", "5 is given twice"),
        ("training.learning_rate=1e-2..1e-4", "0.0001..0.01"),
        ("training.learning_rate=0..1:log", "begins above 0"),
        ("training.steps=1.5..3", "whole numbers"),
        ("network.kind=1..3", "no numbers to draw from"),
    ],
)
def test_a_word_that_cannot_be_read_is_said_in_one_line(word, said):
    with pytest.raises(UserError, match=said) as caught:
        read(word)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("over", "said"),
    [
        (["training.stepps=1,2"], "with training.stepps=1: training.stepps: unknown key; did you mean 'steps'"),
        (["network.width=192,200"], "with network.width=200: .*no multiple"),
        (["training.learning_rate=1e-3..20"], "with training.learning_rate=20.0: "),
        (["data.source=python-docs,gone.txt"], "with data.source=gone.txt: there is no text 'gone.txt'"),
        (["seed=1,2"], "seed is both fixed and varied"),
        ([f"seed={','.join(map(str, range(5, 110)))}", f"data.length={','.join(map(str, range(3, 103)))}"], "10,500"),
    ],
)
def test_a_combination_that_is_no_recipe_is_named(over, said):
    with pytest.raises(UserError, match=said) as caught:
        check("mdlm", ["seed=3"] if "seed=1,2" in over else [], read(*over))
    assert "\n" not in str(caught.value)


def test_a_grid_takes_all_of_its_combinations_and_other_samplers_a_number():
    lists = read("network.layers=1,2", "seed=1,2,3")
    assert planned(lists, sampler="grid", trials=None) == 6
    assert planned(lists, sampler="tpe", trials=4) == 4
    with pytest.raises(UserError, match="has 6 combinations"):
        planned(lists, sampler="grid", trials=4)
    with pytest.raises(UserError, match="give --trials N"):
        planned(lists, sampler="random", trials=None)
    with pytest.raises(UserError, match="a grid needs lists"):
        planned(read("training.learning_rate=1e-4..1e-2"), sampler="grid", trials=None)


def test_seeds_are_whole_numbers_each_once_and_arms_have_names_that_recipes_may_have():
    assert read_seeds("0, 7,2") == [0, 7, 2]
    for wrong in ("", "a", "1,1", "-1", "1.5"):
        with pytest.raises(UserError, match="--seeds"):
            read_seeds(wrong)
    name = arm_name("mdlm", ["process.schedule.kind=cosine", "training.betas=[0.9,0.99]"])
    assert name == "mdlm-kind-cosine-betas-0.9-0.99"
    assert load_recipe("mdlm", [f"name={name}"]).name == name
