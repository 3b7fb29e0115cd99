"""Messages for users."""

import pytest

from remask.errors import RunError, UserError


@pytest.mark.parametrize("kind", [UserError, RunError])
def test_control_characters_of_what_was_given_are_escaped_and_lines_stay_lines(kind):
    assert str(kind("no run '#3\x97'\nseed: \x07")) == "no run '#3\\x97'\nseed: \\x07"
