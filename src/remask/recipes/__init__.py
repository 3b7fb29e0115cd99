"""The experiments that come with remask, one YAML file each."""

from importlib import resources


def recipe_names() -> list[str]:
    """The names of all recipes, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read_recipe(name: str) -> str:
    """The YAML text of the recipe of that name.

    Raises:
        FileNotFoundError: when there is none.
    """
    return (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
