"""Options that several commands share: which run, on what, and how its text is drawn."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from remask.config.schema import Recipe
    from remask.model import Model
    from remask.runs import Registry, RunFolder, RunRecord

RecipeWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [KEY=VALUE]...",
        help="A recipe's name or a YAML file (default: quickstart), and keys to change: training.steps=60 seed=1.",
    ),
]
RunReference = Annotated[str, typer.Argument(metavar="RUN", help="A run id, a unique prefix, `last`, or a folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, and nothing else.")]
Seed = Annotated[int | None, typer.Option(help="Of all noise and draws.")]

SAMPLING: dict[str, Any] = {
    "length": Annotated[int | None, typer.Option(help="Tokens a text.")],
    "steps": Annotated[int | None, typer.Option(help="Denoising steps (of each block).")],
    "sampler": Annotated[str | None, typer.Option(help="ancestral, confidence, left_to_right, …")],
    "grid": Annotated[str | None, typer.Option(help="Times of the steps: equal or smooth.")],
    "block_length": Annotated[int | None, typer.Option(help="Draw blocks of so many tokens from left to right.")],
    "temperature": Annotated[float | None, typer.Option(help="Below 1 is bolder.")],
    "top_p": Annotated[float | None, typer.Option(help="Nucleus: the share of probability kept, above 0 to 1.")],
    "guidance": Annotated[float | None, typer.Option(help="Away from what is likely without the prompt; 0: none.")],
    "latent_sampler": Annotated[str | None, typer.Option(help="concept prior: ddpm, ddim or heun draw the concepts.")],
    "latent_steps": Annotated[int | None, typer.Option(help="concept prior: steps from noise to concepts.")],
    "stop": Annotated[bool | None, typer.Option("--stop/--no-stop", help="End each text at its first end of text.")],
    "budget": Annotated[float | None, typer.Option(help="entropy_bounded: nats revealed a step.")],
    "reveal": Annotated[
        str | None,
        typer.Option(help="bijective: left_to_right, random, spread, confidence, margin or entropy."),
    ],
    "remasking": Annotated[str | None, typer.Option(help="remdm: cap, rescale, confidence or loop.")],
    "eta": Annotated[float | None, typer.Option(help="remdm: strength of masking again, 0 to 1.")],
    "corrector_steps": Annotated[int | None, typer.Option(help="predictor_corrector: corrections a step.")],
    "threshold": Annotated[float | None, typer.Option(help="proofreading: how wrong a token must look to be masked.")],
    "order": Annotated[str | None, typer.Option(help="proofreading: what is filled in first, confidence or chance.")],
    "finish": Annotated[float | None, typer.Option(help="proofreading: share of the steps that read the full text.")],
}
"""Options of how text is drawn, named as the keys of a recipe's sampling section that they change."""


def with_sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `SAMPLING`, and hands it their values as its argument `sampling`.

    `sampling` has the recipe's dotted keys, with None for an option that was not given.
    """
    return with_options("sampling", SAMPLING, key="sampling.{}".format)(command)


def with_options(
    bundle: str,
    options: Mapping[str, Any],
    *,
    usual: Mapping[str, Any] | None = None,
    key: Callable[[str], str] = str,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives commands options that several of them share, and hands them the values in one argument.

    Args:
        bundle: that argument's name.
        options: name → type and help of each.
        usual: values of those that are not None where they are not given.
        key: name → key in the bundle.
    """

    def give(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [parameter for name, parameter in signature.parameters.items() if name != bundle]
        kind, defaults = inspect.Parameter.KEYWORD_ONLY, usual or {}
        added = [inspect.Parameter(n, kind, default=defaults.get(n), annotation=each) for n, each in options.items()]

        @wraps(command)
        def run(**values: Any) -> None:
            together = {key(name): values.pop(name) for name in options}
            command(**values, **{bundle: together})

        # typer reads both
        run.__signature__ = signature.replace(parameters=[*own, *added])  # pyright: ignore[reportAttributeAccessIssue]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
        return run

    return give


def changed_recipe(folder: "RunFolder", options: Mapping[str, Any]) -> "Recipe":
    """The run's recipe with the options that were given; what is wrong with one is said in the option's name.

    Another sampler gives up the keys of the recipe that belong to the old one alone.

    Args:
        folder: the run's.
        options: dotted keys with their values; None where an option was not given.
    """
    from remask.config.contradictions import SAMPLER_KEYS
    from remask.config.load import load_recipe
    from remask.errors import UserError

    given = [f"{key}={_written(value)}" for key, value in options.items() if value is not None]
    sampler = options.get("sampling.sampler")
    if sampler is not None:
        others = [key for key, owner in SAMPLER_KEYS.items() if owner != sampler]
        given += [f"sampling.{key}=null" for key in others if options.get(f"sampling.{key}") is None]
    try:
        return load_recipe(str(folder.recipe_path), given)
    except UserError as error:
        message = re.sub(_OTHER_RUN, "", _LEFT_OUT.sub(_leave_out, str(error)))
        message = re.sub(r"\b(?:sampling|evaluation)\.([a-z_]+)(=?)", _as_option, message)
        raise UserError(re.sub(r"^seed:", "--seed:", message, flags=re.MULTILINE)) from None


def refuse_steps(model: "Model", steps: int | None) -> None:
    """An autoregressive model takes one step a token, whatever is asked.

    Raises:
        UserError: when steps are given for such a model.
    """
    from remask.errors import UserError

    if model.process is None and steps is not None:
        raise UserError(f"--steps {steps}: an autoregressive model draws one token a step. Leave --steps out")


_LEFT_OUT = re.compile(r"give (sampling\.[a-z_]+)=null(, or)?")
"""Advice for a recipe: on a command line, an option without a value is one that is not given."""
_OTHER_RUN = re.compile(r", or (?:process|objective)\.kind=[a-z_]+")
"""Advice that a trained model cannot follow."""


def _leave_out(advice: re.Match[str]) -> str:
    return f"leave {advice[1]} out{', or give' if advice[2] else ''}"


def _written(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _as_option(key: re.Match[str]) -> str:
    """`sampling.top_p` as `--top-p`, and `sampling.sampler=` as `--sampler `."""
    return f"--{key[1].replace('_', '-')}{' ' if key[2] else ''}"


def complain(registry: "Registry", record: "RunRecord") -> None:
    """Says on standard error what of a run cannot be read, so that no figure is missing or wrong in silence."""
    folder = registry.folder_of(record)
    for complaint in (*folder.complaints(steps=record.step), *registry.disagreements(record)):
        typer.echo(complaint, err=True)
