"""How a question is put to a model, alone or behind worked examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from remask.config.schema import Recipe
from remask.data.documents import Pair
from remask.drawing import answers_prompts, ended_prompt

BETWEEN = "\n\n"
"""What stands between two examples, and ends a response of a model that would go on with a further one."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How a question and its answer are written.

    Attributes:
        name: for the protocol.
        ask: a question → all that stands before its answer.
        before_answer: what stands between the two in an example.
        goes_on: whether a model may write further questions behind an answer, so that a response is cut at a gap.
    """

    name: str
    ask: Callable[[str], str]
    before_answer: str
    goes_on: bool

    def prompt(self, question: str, examples: Sequence[Pair]) -> str:
        """A question behind examples, all written alike."""
        shown = [f"{self.ask(pair.prompt)}{self.before_answer}{pair.response}" for pair in examples]
        return BETWEEN.join([*shown, self.ask(question)])

    def response(self, text: str, examples: Sequence[Pair]) -> str:
        """What of a drawn text answers the question: all of it, or what stands before a further question."""
        return text.strip().partition(BETWEEN)[0] if self.goes_on or examples else text


def wording_of(recipe: Recipe) -> Wording:
    """As training had its prompts; for a model of plain text, as lm-evaluation-harness asks GSM8K."""
    if answers_prompts(recipe) and not recipe.data.prefix:
        return Wording(name="as in training", ask=partial(ended_prompt, recipe=recipe), before_answer="", goes_on=False)
    ask: Callable[[str], str] = "Question: {}\nAnswer:".format
    return Wording(name="Question: … Answer:", ask=ask, before_answer=" ", goes_on=True)
