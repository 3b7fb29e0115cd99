"""Checkers for answers of any source: equal text, or an equal final result."""

MARK = "####"


def is_equal(prompt: str, response: str, reference: str) -> bool:
    """Whether response and reference are the same text, white space at the ends aside."""
    del prompt
    return response.strip() == reference.strip()


def is_equal_behind_mark(prompt: str, response: str, reference: str) -> bool:
    """Whether what follows the last `####` is the same in both, white space and thousands commas aside.

    The form of GSM8K (Cobbe et al., arXiv:2110.14168), where the reasoning before the mark may be any. A response
    without the mark is wrong; a reference without it is compared as a whole.
    """
    del prompt
    if MARK not in response:
        return False
    return result_behind_mark(response) == result_behind_mark(reference)


def result_behind_mark(text: str) -> str:
    """What follows the last mark, or the whole text, without white space at its ends and thousands commas."""
    return text.rpartition(MARK)[2].strip().replace(",", "")
