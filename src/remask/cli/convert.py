"""`remask convert`: a pretrained causal language model becomes a diffusion model."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A causal language model: a folder, or its name on the Hugging Face hub."),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Keys to change: data.source=FILE training.steps=500 network.adaptation=lora.",
        ),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Draw blocks of N tokens from left to right (recipe convert-bd3lm)."),
    ] = None,
) -> None:
    """Adapt a pretrained causal language model to denoise, and keep everything in a run folder.

    It is trained as recipe convert-mdlm says (masked diffusion over whole rows), or, with --block, as convert-bd3lm.
    """
    from remask.config.load import load_recipe

    # before torch is imported: mistakes are answered at once
    recipe = load_recipe(*conversion(name, arguments or [], block=block))
    from remask import experiment
    from remask.cli.progress import make_watcher
    from remask.data.cache import cache_home
    from remask.runs import runs_home

    with make_watcher() as watch:
        record = experiment.start(recipe, home=runs_home(), cache=cache_home(), watch=watch)
    watch.finished(record)


def conversion(name: str, arguments: list[str], *, block: int | None) -> tuple[str, list[str]]:
    """The recipe and the changes to it that a command line asks for; its own keys have the last word.

    Args:
        name: of the model; one that is a folder is taken by its full path, so that the run resumes from anywhere.
        arguments: `key=value` words.
        block: tokens a block, or None for masked diffusion over whole rows.

    Raises:
        UserError: when the name is a `key=value` itself, or another word is none.
    """
    from remask.errors import UserError

    if "=" in name:
        raise UserError(f"'{name}' is no model: write its folder or hub name first, then KEY=VALUE")
    for word in arguments:
        if "=" not in word:
            raise UserError(f"'{word}' is not KEY=VALUE: write for example training.steps=500, after one model's name")
    folder = Path(name).expanduser()
    source = str(folder.resolve()) if folder.is_dir() else name
    changes = [f"network.name={source}", f"tokenizer.name={source}"]
    if block is None:
        return "convert-mdlm", [*changes, *arguments]
    blocks = [f"objective.block_length={block}", f"sampling.block_length={block}"]
    return "convert-bd3lm", [*changes, *blocks, *arguments]
