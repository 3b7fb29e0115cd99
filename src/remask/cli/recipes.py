"""`remask recipes`: the experiments that come with remask, and what their keys mean."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from remask.config.schema import Recipe


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A recipe's name or a YAML file; without it: all recipes."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line and nothing else.")] = False,
) -> None:
    """List the recipes, or print one with every key explained."""
    from remask.config.load import explain_keys, explain_recipe, preview_recipe
    from remask.recipes import recipe_names

    if name is not None:
        recipe = preview_recipe(name)
        text = _as_json(recipe, keys=explain_keys(recipe)) if json else explain_recipe(recipe)
        typer.echo(text.rstrip("\n"))
        return
    found = [preview_recipe(each) for each in recipe_names()]
    if json:
        for recipe in found:
            typer.echo(_as_json(recipe))
        return
    width = max(len(recipe.name) for recipe in found)
    for recipe in found:
        typer.echo(f"{recipe.name:<{width}}  {recipe.description}\n{'':<{width}}  {size(recipe)}")
    typer.echo("\nremask recipes NAME explains one; remask train NAME [key=value ...] runs it.")


def size(recipe: "Recipe") -> str:
    """How large a recipe's network and training are, in words."""
    from remask.config.schema import STRETCHED, AdaptedSpec

    network, training = recipe.network, recipe.training
    shape = (
        f"{'all' if network.adaptation == 'full' else 'low-rank updates'} of {network.name}"
        if isinstance(network, AdaptedSpec)
        else f"{network.layers} layers of width {network.width}"
    )
    if network.kind == "concept":
        concepts = "a concept for every token" if network.slot_count is None else f"{network.slot_count} concepts"
        concepts = f"{network.concepts} concepts at most" if network.encoder in STRETCHED else concepts
        shape = (
            f"{network.layers} encoder and {network.decoder_depth} decoder layers of width {network.width}, {concepts}"
        )
    if network.kind == "reversible":
        shape += f", {network.reversible_blocks} reversible"
    tokens = training.steps * training.batch_size * recipe.data.length
    return (
        f"{shape}; {training.steps:,} steps of "
        f"{training.batch_size} rows of {recipe.data.length} tokens = {tokens / 1e6:,.1f} million tokens"
    )


def _as_json(recipe: "Recipe", **more: Any) -> str:
    from json import dumps

    from remask.config.schema import AdaptedSpec

    training, network = recipe.training, recipe.network
    record: dict[str, Any] = {
        "name": recipe.name,
        "description": recipe.description,
        "layers": None if isinstance(network, AdaptedSpec) else network.layers,
        "width": None if isinstance(network, AdaptedSpec) else network.width,
        "steps": training.steps,
        "tokens": training.steps * training.batch_size * recipe.data.length,
    }
    return dumps(record | more, ensure_ascii=False)
