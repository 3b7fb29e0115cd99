import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from remask.cli.recipes import recipes, size
from remask.config.load import load_recipe
from remask.errors import UserError
from remask.recipes import read_recipe, recipe_names

app = typer.Typer()
app.command()(recipes)


def run(*arguments):
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_list_names_every_recipe_with_its_description_and_size():
    output = run().stdout
    for name in recipe_names():
        assert f"\n{name} " in f"\n{output}"
    quickstart = load_recipe("quickstart")
    assert quickstart.description in output
    assert size(quickstart) in output


def test_the_size_counts_the_tokens_of_a_run():
    changes = ["training.steps=1500", "training.batch_size=10", "data.length=200", "network.layers=3"]
    text = size(load_recipe("quickstart", [*changes, "network.width=64", "training.warmup_ratio=0"]))
    assert text == "3 layers of width 64; 1,500 steps of 10 rows of 200 tokens = 3.0 million tokens"


def test_the_list_as_json_is_one_object_a_line():
    records = [json.loads(line) for line in run("--json").stdout.splitlines()]
    assert [record["name"] for record in records] == recipe_names()
    assert all({"description", "layers", "width", "steps", "tokens"} <= set(record) for record in records)


@pytest.mark.parametrize("name", recipe_names())
def test_a_printed_recipe_can_be_saved_and_run(name, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(run(name).stdout)
    changes = [] if "source" in yaml.safe_load(read_recipe(name))["data"] else ["data.source=FILE"]
    changes += ["network.codec=RUN"] if name in ("concept-prior", "thought-vae") else []
    assert load_recipe(str(file)) == load_recipe(name, changes)


def test_one_recipe_as_json_explains_each_key():
    (line,) = run("ar", "--json").stdout.splitlines()
    steps = json.loads(line)["keys"]["training.steps"]
    assert steps["value"] == load_recipe("ar").training.steps
    assert steps["description"] == "optimiser steps"
    assert steps["valid"] == "a whole number at least 1"


def test_an_unknown_name_is_a_user_error_with_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'mdlm'"):
        run("mdml")
