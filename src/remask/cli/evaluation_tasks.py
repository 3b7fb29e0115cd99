"""What `remask evaluate` can be asked for: its tasks, the options that each reads, and each one's recipe."""

from typing import TYPE_CHECKING, Any

from remask.cli import options as option
from remask.cli import reasoning
from remask.cli.sentences import OPTIONS
from remask.reasoning_tasks.names import REASONING_TASKS
from remask.sentences.tasks import SENTENCE_TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from remask.config.schema import Recipe
    from remask.runs import RunFolder

TASKS = (
    "likelihood",
    "exact-likelihood",
    "levels",
    "concepts",
    "thought",
    "quality",
    "answers",
    "judged",
    "mauve",
    "reconstruction",
)
_NAMES = (*TASKS, *REASONING_TASKS, *SENTENCE_TASKS)
COUNTS = {
    "likelihood": None,
    "exact-likelihood": None,
    "levels": None,
    "concepts": None,
    "thought": 32,
    "quality": 32,
    "answers": 256,
    "judged": 256,
    "mauve": 256,
    "reconstruction": None,
}
"""Texts that a task draws where --count is not given."""
_COUNTED = frozenset({"thought", "quality", "answers", "judged", "mauve"})
_DRAWING = _COUNTED | frozenset(REASONING_TASKS)
_EXACT = "exact-likelihood"
_OWN = "reconstruction"
"""The task of models without a likelihood, each judged by a figure of its own."""
_OF_EXACT = ("sampling.steps", "sampling.block_length")
"""Keys of sampling that say whose probability the exact likelihood is, beside its order."""
_READ_BY = {
    "evaluation.rows": frozenset({"likelihood", _EXACT, "levels", "concepts", "thought", _OWN}),
    "evaluation.batch_size": _DRAWING | {"likelihood", _EXACT, "levels", "thought", _OWN},
    "evaluation.draws": frozenset({"likelihood", "levels", "concepts", "thought", _OWN}),
    "none": frozenset({"concepts"}),
    "full": frozenset({"concepts"}),
    "levels": frozenset({"levels", "thought"}),
    "count": _COUNTED,
    "sampling.reveal": _DRAWING | {_EXACT},
    **{key: _DRAWING | {_EXACT} for key in _OF_EXACT},
    **dict.fromkeys(OPTIONS, frozenset(SENTENCE_TASKS)),
    **dict.fromkeys(reasoning.OPTIONS, frozenset(REASONING_TASKS)),
}
"""The tasks that read an option; others of sampling are read by all that draw, and others still by all."""


def task_recipe(
    task: str, wanted: "Sequence[str]", folder: "RunFolder", options: "Mapping[str, Any]", *, count: int | None
) -> "Recipe":
    """The run's recipe with the options that one of the wanted tasks reads.

    An exact likelihood is of a sampler of its own, with the recipe's steps and blocks. Beside it, tasks that draw read
    an order of revealing only where their sampler does.

    Args:
        task: one of `TASKS`.
        wanted: all that will run.
        folder: the run's.
        options: dotted keys with their values; None where an option was not given.
        count: texts to draw; None for the task's usual number.
    """
    counted = {**options, "sampling.count": COUNTS[task] if count is None else count}
    if task == _EXACT:
        read = {key: value for key, value in counted.items() if not key.startswith("sampling.") or key in _OF_EXACT}
        return option.changed_recipe(folder, read)
    if _EXACT in wanted:
        plain = option.changed_recipe(folder, {**counted, "sampling.reveal": None})
        if plain.sampling.sampler != "bijective":
            return plain
    return option.changed_recipe(folder, counted)


def in_tables(wanted: "Sequence[str]") -> list[list[str]]:
    """The tasks in groups that share a table: the bound and the exact likelihood, where one follows the other."""
    groups: list[list[str]] = []
    for name in wanted:
        if groups and {*groups[-1], name} == {"likelihood", _EXACT}:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def wanted_tasks(
    given: "Sequence[str] | None", *, judge: str | None, features: str | None, folder: "RunFolder"
) -> list[str]:
    """The tasks to run, in the order in which they were named, each once; reasoning and sentence tasks last.

    Raises:
        UserError: when a task is unknown, or a model that a task needs is missing, or none needs one that is given.
    """
    from remask.config.words import draws_text, own_figure_of
    from remask.drawing import answers_prompts
    from remask.errors import UserError, did_you_mean

    recipe = option.changed_recipe(folder, {})
    usual = ("likelihood", "answers" if answers_prompts(recipe) and not recipe.data.prefix else "quality")
    if own_figure_of(recipe) is not None:
        usual = (_OWN, "answers") if draws_text(recipe) and answers_prompts(recipe) else (_OWN,)
    chosen = list(dict.fromkeys(given or usual))
    for name in chosen:
        if name not in _NAMES:
            raise UserError(f"--task {name} is unknown; {did_you_mean(name, _NAMES)}")
    needs = {
        "judged": ("--judge", judge, "a model that judges: give an autoregressive run with --judge RUN, or a folder"),
        "mauve": ("--features", features, "a model whose hidden states stand for texts: give --features RUN or FOLDER"),
    }
    for name, (flag, reference, wish) in needs.items():
        if name in chosen and reference is None:
            raise UserError(f"--task {name} needs {wish} with a causal language model")
        if name not in chosen and reference is not None:
            raise UserError(f"{flag} {reference} is given, and no task needs it: add --task {name}")
    return sorted(chosen, key=lambda name: (name in SENTENCE_TASKS, name in REASONING_TASKS))


def refuse_unread(tasks: "Sequence[str]", options: "Mapping[str, Any]") -> None:
    """Refuses an option that none of the tasks reads, rather than passing over it.

    Args:
        tasks: those that will run.
        options: dotted keys with their values; None where an option was not given.

    Raises:
        UserError: naming the option and the tasks that read it.
    """
    from remask.errors import UserError

    mixed = options.get("sampling.reveal") == "any_order"  # one token a round, whatever is asked
    for key, value in options.items():
        readers = _READ_BY.get(key, _DRAWING if key.startswith("sampling.") else None)
        if mixed and key in _OF_EXACT:
            readers = _DRAWING
        if value is not None and readers is not None and not readers & set(tasks):
            flag = "--" + key.rpartition(".")[2].replace("_", "-")
            shown = [name for name in (*TASKS, *SENTENCE_TASKS) if name in readers]
            named = ", ".join([*shown, *(["reasoning tasks"] if readers & set(REASONING_TASKS) else [])])
            raise UserError(
                f"{flag} is given, and of the tasks {', '.join(tasks)} none reads it. Tasks that do: {named}"
            )
