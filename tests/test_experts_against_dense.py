"""The benchmark of a mixture of experts against dense networks: that its arms are what they are called."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import experts_against_dense as benchmark

from doubles import full_batch
from remask.config.build import build_model
from remask.flops import analytic_flops
from remask.tokenizers import CharacterTokenizer

MIXTURE, COST, SIZE = benchmark.ARMS


@pytest.fixture(scope="module")
def models():
    tokenizer, folder = CharacterTokenizer("#0123456789 +-*=?"), Path("nowhere")
    recipes = {arm: benchmark.recipe_of(arm, folder=folder, seed=1, steps=6) for arm in benchmark.ARMS}
    return {arm: build_model(recipe, tokenizer, device=torch.device("cpu")) for arm, recipe in recipes.items()}


def test_one_dense_network_has_the_parameters_of_the_mixture(models):
    assert models[SIZE].parameters == pytest.approx(models[MIXTURE].parameters, rel=0.01)
    assert models[COST].parameters < models[MIXTURE].parameters / 2


def test_the_other_has_its_operations_a_token(models):
    """A row of problems as they are written, the question first."""
    ids = models[COST].tokenizer.encode("12+3?12+3=15 #### 15").ids
    ids = torch.from_numpy(ids).long()[None].repeat(2, 1)
    batch = replace(full_batch(ids), targets=(torch.arange(ids.shape[1]) > 4).expand(2, -1))
    cost = {arm: analytic_flops(model, batch) for arm, model in models.items()}
    assert cost[COST] == pytest.approx(cost[MIXTURE], rel=0.01)
    assert cost[SIZE] > 2.5 * cost[MIXTURE]


def test_the_share_of_right_answers_has_the_error_of_the_questions_all_seeds_share_or_of_seeds_where_that_is_larger():
    def line(seed, right):
        return {"arm": MIXTURE, "seed": seed, "step": 10, "right": right, "asked": 400, "flops": 1e9}

    assert benchmark.shares([line(1, 100)], MIXTURE)[10] == (1e9, 0.25, pytest.approx(0.0217, abs=1e-3))
    flops, share, error = benchmark.shares([line(1, 100), line(2, 300)], MIXTURE)[10]
    assert (flops, share, error) == (1e9, 0.5, pytest.approx(0.25))
    alike = benchmark.shares([line(1, 200), line(2, 200)], MIXTURE)[10]
    assert alike[2] == pytest.approx(0.0249, abs=1e-4), "400 questions, however many seeds answer them"
