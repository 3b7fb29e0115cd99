"""How long a training goes on, as its lines say."""

import pytest

from remask.cli.progress import TimeLeft, in_words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (47.6, "48 s"),
        (60, "1 min 0 s"),
        (751, "12 min 31 s"),
        (4321, "1 h 12 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_length_of_time_is_said_in_its_two_largest_units(seconds, said):
    assert in_words(seconds) == said


def test_what_is_left_follows_from_the_pace_since_the_training_was_taken_up():
    """40 steps took 400 s before it was stopped; since then 10 took 20 s."""
    left = TimeLeft(100, step=40, seconds=400.0)
    assert left.words({"step": 50, "seconds": 420.0}) == "  1 min 40 s left"
    assert left.words({"step": 100, "seconds": 520.0}) == ""
    assert left.words({"step": 30, "seconds": 421.0}) == "", "it went back"
