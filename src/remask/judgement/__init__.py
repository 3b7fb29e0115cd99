"""The tasks of `remask evaluate`: which text, which references, which protocol."""

from remask.judgement.answers import judge_answers
from remask.judgement.levels import judge_levels
from remask.judgement.likelihood import judge_likelihood
from remask.judgement.opening import load_features, load_judge
from remask.judgement.readers import Reader
from remask.judgement.samples import Yardstick, draw_for_judging, judged_length, open_yardstick
from remask.judgement.text import JudgedText, open_judged_text

__all__ = [
    "JudgedText",
    "Reader",
    "Yardstick",
    "draw_for_judging",
    "judge_answers",
    "judge_levels",
    "judge_likelihood",
    "judged_length",
    "load_features",
    "load_judge",
    "open_judged_text",
    "open_yardstick",
]
