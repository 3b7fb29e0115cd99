"""What training keeps in memory, storage by storage, against depth and over steps (benchmarks/reversible.py)."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import reversible as benchmark

SIZES = Namespace(width=16, length=8, rows=2, coupling="additive", dropout=0.1)
DEPTHS = (2, 4, 8)
STREAM = 2 * 8 * 16 * 4
"""Bytes of one tensor [rows, length, width] in float32."""


def held(way: str, depth: int, *, steps: int = 0) -> int:
    """Bytes that are there after so many steps and a forward pass, weights and their gradients left out."""
    network = benchmark.WAYS[way](SIZES, depth)
    with benchmark.Live(network) as live:
        for _ in range(steps):
            benchmark.loss_of(network, SIZES).backward()
        loss = benchmark.loss_of(network, SIZES)
        found = live.now()
        del loss
    return found


def slope(way: str, measure) -> float:
    return benchmark.slope(DEPTHS, [measure(way, depth) for depth in DEPTHS])


def saved(way: str, depth: int) -> int:
    return benchmark.saved_bytes(benchmark.WAYS[way](SIZES, depth), SIZES)


def test_inverted_activations_take_the_same_memory_at_every_depth():
    assert len({saved("reversible, inverted", depth) for depth in DEPTHS}) == 1
    assert len({held("reversible, inverted", depth) for depth in DEPTHS}) == 1


def test_other_ways_take_more_with_each_block():
    assert slope("standard", held) == pytest.approx(slope("standard", saved), rel=0.05)
    assert slope("standard", held) > 10 * STREAM
    assert slope("reversible, kept", held) > 10 * STREAM
    assert slope("checkpointed", held) == pytest.approx(STREAM), "the input of each block"


@pytest.mark.parametrize("way", benchmark.WAYS)
def test_nothing_is_left_of_steps_that_are_over(way):
    error = 8 if way == "reversible, inverted" else 0  # bytes of the inversion error that the last step found
    assert held(way, 2, steps=3) == held(way, 2) + error


def test_what_a_step_leaves_behind_is_seen():
    network = benchmark.WAYS["standard"](SIZES, 2)
    with benchmark.Live(network) as live:
        kept = benchmark.loss_of(network, SIZES)
        with_graph = live.now()
        value = kept.detach()
        del kept
        assert live.now() < with_graph / 10
        assert torch.isfinite(value)


def test_the_slope_is_that_of_the_least_squares_line():
    assert benchmark.slope([1, 2, 3], [5.0, 7.0, 9.0]) == pytest.approx(2.0)
    assert benchmark.slope([0, 1, 2], [0.0, 0.0, 3.0]) == pytest.approx(1.5)
