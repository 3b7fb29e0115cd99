import math
import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from remask.config.yaml_text import parse_yaml, to_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2E5", 200000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("+7", 7),
        ("007", 7),
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("False", False),
        ("-.inf", -math.inf),
        ("[1, 2e0]", [1, 2.0]),
        ("'1e-3'", "1e-3"),
        ('"a\\nb"', "a\nb"),
    ],
)
def test_numbers_and_constants_are_what_they_look_like(text, value):
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["no", "off", "yes", "12:30", "2024-01-01", "0x1f", "1_000", "none", "=", "1e", "v1.2"]
)
def test_what_only_looks_like_a_number_or_constant_in_yaml_1_1_is_text(text):
    assert parse_yaml(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\nb: *x", "aliases"),
        ("&a [*a]", "aliases"),
        ("!!python/object/apply:os.getcwd []", "tag !!python/object/apply:os.getcwd is not supported"),
        ("!secret x", "tag !secret is not supported"),
        ("a: 1\na: 2", "the key a is given twice (line 2"),
        ("[a", "line 1"),
        ("a: b: c", "mapping values are not allowed here"),
        ("\x00", "special characters"),
        ("[" * 600, "nested too deeply"),
        ("? [a]\n: b", "a key must be one word"),
        ("a\n---\nb", "another document"),
    ],
)
def test_yaml_that_no_recipe_needs_is_refused_in_one_line(text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


@given(VALUES)
@example({"a": ["1e-3", "no", "null", "\u2028", "# x", "a: b", "- a", ""]})
@example("\x85")
def test_what_is_written_reads_back_identically(value):
    assert parse_yaml(to_yaml(value)) == value


@given(st.dictionaries(st.text(alphabet="abcxyz_", min_size=1), st.none() | st.booleans() | st.text()))
def test_readers_of_yaml_1_1_understand_what_is_written(value):
    assert yaml.safe_load(to_yaml(value)) == value


@given(st.dictionaries(st.from_regex("[a-z_]+", fullmatch=True), st.lists(st.text()) | st.text(), min_size=1))
def test_each_key_is_written_on_one_line(value):
    assert len(to_yaml(value).splitlines()) == len(value)


@given(st.text())
def test_any_text_either_reads_or_is_refused_in_one_line(text):
    message = ""
    try:
        parse_yaml(text)
    except ValueError as error:
        message = str(error)
    assert "\n" not in message
