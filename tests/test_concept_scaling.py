"""The benchmark of time and memory against the length of a row (benchmarks/concept_scaling.py): what it compares."""

import math
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import concept_scaling as benchmark
import reading_ways
from reading_ways import FIXED, FULL, WAYS

from remask.randomness import keyed_generator

SIZES = reading_ways.Sizes(
    width=16, layers=2, decoder_layers=1, heads=2, concepts=4, window=64, threads=1, device="cpu"
)
CPU = torch.device("cpu")


def logits_of(network: torch.nn.Module, row: torch.Tensor) -> torch.Tensor:
    every = torch.ones_like(row, dtype=torch.bool)
    return network(row, torch.ones(1), segments=torch.ones_like(row), positions=every)


def test_the_sliding_window_is_attention_under_a_band():
    row, place = reading_ways.row_of(256, CPU), torch.arange(256)
    near, full = reading_ways.sliding(SIZES, 256), reading_ways.full(SIZES, 256)
    full.load_state_dict({name: 3 * weight for name, weight in near.state_dict().items()})
    near.load_state_dict(full.state_dict())
    found, unbounded = logits_of(near, row), logits_of(full, row)
    for width, agrees in ((32, True), (31, False), (33, False)):
        band = ((place[:, None] - place).abs() <= width)[None, None]
        full.direction = replace(full.direction, mask=lambda segments, *, since=0, band=band: band)
        assert torch.allclose(logits_of(full, row), found, atol=1e-5) == agrees
    assert (found - unbounded).abs().max() > 1e-2


@pytest.mark.parametrize("way", WAYS)
def test_every_way_predicts_the_hidden_tokens_from_the_others_alone(way):
    network, row, heard = WAYS[way].build(SIZES, 256), reading_ways.row_of(256, CPU), []
    with torch.no_grad():
        for parameter in network.parameters():  # gates begin at zero, behind which nothing is seen
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=keyed_generator(parameter.numel())))
    network.register_forward_hook(lambda module, given, logits: heard.append(logits.detach()))
    loss = WAYS[way].loss(network, row)
    assert torch.isfinite(loss)
    loss.backward()
    assert sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None) > 0
    hidden, visible = row.clone(), row.clone()
    hidden[:, -reading_ways.HIDDEN :] += 1
    visible[:, -reading_ways.HIDDEN - 1] += 1
    for other in (hidden % 256, visible % 256):
        WAYS[way].loss(network, other)
    first, same, different = heard
    assert len(first) == reading_ways.HIDDEN
    assert torch.equal(first, same)
    assert not torch.equal(first, different)


def test_a_point_has_its_figures_and_one_without_room_is_left_out(monkeypatch):
    task = benchmark.Task("sliding window", 256, "forward + backward", SIZES, seconds=0.0)
    found = benchmark.measure(task)
    assert found["seconds"] > 0
    assert found["repeats"] == 1

    def too_large(task):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(benchmark, "hold", lambda gigabytes: None)
    monkeypatch.setattr(benchmark, "measure", too_large)
    with pytest.raises(SystemExit, match="more than 2 GB"):
        benchmark.run_point(benchmark.json.dumps(benchmark.asdict(task)), gigabytes=2.0)


def test_rows_longer_than_one_that_did_not_fit_are_left_out_and_points_written_down_are_not_measured_again(
    tmp_path, monkeypatch
):
    asked = []

    def stand_in(task, *, limit, gigabytes):
        asked.append((task.way, task.tokens, task.kind))
        point = {"way": task.way, "tokens": task.tokens, "pass": task.kind}
        if task.way == FULL and task.tokens >= 512:
            return {**point, "left_out": f"more than {limit:g} s"}
        return {**point, "seconds": 1e-3 * task.tokens, "memory_bytes": 10 * task.tokens}

    monkeypatch.setattr(benchmark, "in_fresh_process", stand_in)
    arguments = Namespace(lines=tmp_path / "points.jsonl", max_n=1024, limit=9.0, gigabytes=1.0, seconds=0.0)
    lines = list(benchmark.all_points(arguments, SIZES))
    assert len(lines) == len(WAYS) * len(benchmark.PASSES) * 3
    full = [line for line in lines if line["way"] == FULL and line["pass"] == "forward"]
    assert [line.get("left_out") for line in full] == [None, "more than 9 s", "more than 9 s for a shorter row"]
    assert (FULL, 1024, "forward") not in asked
    asked.clear()
    again = list(benchmark.all_points(arguments, SIZES))
    assert [line.get("seconds") for line in again] == [line.get("seconds") for line in lines]
    assert set(asked) == {(FULL, 512, kind) for kind in benchmark.PASSES}
    asked.clear()
    list(benchmark.all_points(arguments, replace(SIZES, width=32)))
    assert len(asked) == len(lines) - len(benchmark.PASSES)


def test_slopes_are_those_of_the_last_three_lengths_and_promises_are_judged_by_them():
    linear, square = ({2**n: float(2 ** (n * power)) for n in range(8, 17)} for power in (1, 2))
    assert benchmark.slope(linear) == pytest.approx(1.0)
    assert benchmark.slope({**square, 256: 1e9}) == pytest.approx(2.0)
    assert math.isnan(benchmark.slope({256: 1.0, 512: 2.0}))
    rise, gain = benchmark.promises({FIXED: linear, FULL: square})
    assert rise.endswith("holds)")
    assert gain.endswith("holds)")
    rise, gain = benchmark.promises({FIXED: square, FULL: square})
    assert rise.endswith("FAILS)")
    assert gain.endswith("FAILS)")
    assert all(told.endswith("not measured)") for told in benchmark.promises({FIXED: {}, FULL: square}))


def test_the_figure_and_the_table_are_made_of_what_was_measured(tmp_path, capsys):
    lines = [
        {"way": way, "tokens": tokens, "pass": kind, "seconds": tokens / 1e4, "memory_bytes": tokens * 1000}
        for way in WAYS
        for kind in benchmark.PASSES
        for tokens in (256, 512, 1024)
    ]
    benchmark.tell([*lines, {"way": FULL, "tokens": 2048, "pass": "forward", "left_out": "more than 9 s"}], SIZES)
    told = capsys.readouterr().out
    assert "left out: full attention, 2,048 tokens, forward: more than 9 s" in told
    assert "102.4" in told
    benchmark.draw(lines, SIZES, tmp_path / "scaling.svg")
    assert "slope 1.00" in (tmp_path / "scaling.svg").read_text()
