"""A mixture of experts against the dense network with as many active parameters: operations and time of a step.

Both networks train on the same random rows in one process, a step of each in turn, after one step that is not counted.
Printed for each: parameters, active parameters, operations of a target token as torch's counter measures them and by
the closed form (`remask.flops`), the median time of a forward and backward pass, and operations a second; also as
ratios to the dense network's. With `--experts 8 16` each number of experts is measured.

Run: .venv/bin/python benchmarks/experts.py [--width 192] [--layers 4] [--length 128] [--rows 16] [--experts 8]
     [--per-token 2] [--steps 8] [--device cpu] [--json]
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch

from remask.config.build import build_model, resolve_device
from remask.config.load import load_recipe
from remask.data.batch import Batch
from remask.flops import active_parameters, analytic_flops, training_flops
from remask.model import Model
from remask.randomness import keyed_generator
from remask.tokenizers import ByteTokenizer


def models(args: argparse.Namespace) -> dict[str, Model]:
    """The dense network and those of experts, by name."""
    heads = max(1, args.width // 64)
    size = [f"network.width={args.width}", f"network.layers={args.layers}", f"network.heads={heads}"]
    size += [f"data.length={args.length}", "tokenizer.kind=byte", "network.dropout=0.0"]
    recipes = {"dense": load_recipe("mdlm", size)}
    for number in args.experts:
        chosen = [f"network.experts={number}", f"network.experts_per_token={args.per_token}"]
        recipes[f"{number} experts, {args.per_token} a token"] = load_recipe("mdlm-moe", [*size, *chosen])
    device = resolve_device(args.device)
    return {name: build_model(recipe, ByteTokenizer(), device=device) for name, recipe in recipes.items()}


def random_rows(args: argparse.Namespace, device: torch.device) -> Batch:
    """Rows of random bytes, all of which count."""
    ids = torch.randint(256, (args.rows, args.length), generator=keyed_generator(1))
    ones = torch.ones_like(ids)
    places = torch.arange(args.rows)
    return Batch(ids=ids, segments=ones, targets=ones.bool(), byte_lengths=ones, rows=places, global_size=args.rows).to(
        device
    )


def seconds_of_step(model: Model, batch: Batch, step: int) -> float:
    """Time of one forward and backward pass."""
    generator = keyed_generator("benchmark", step, device=model.device)
    synchronise(model.device)
    began = time.perf_counter()
    model.objective(model.network, batch, generator=generator).nats.sum().backward()
    synchronise(model.device)
    model.network.zero_grad()
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Waits for a GPU to finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of each network, the dense one first."""
    torch.set_num_threads(args.threads)
    found = models(args)
    for model in found.values():
        model.network.train()
    device = found["dense"].device
    batch = random_rows(args, device)
    times: dict[str, list[float]] = {name: [] for name in found}
    for step in range(args.steps + 1):
        for name, model in found.items():
            times[name].append(seconds_of_step(model, batch, step))
    tokens = int(batch.targets.sum())
    rows = []
    for name, model in found.items():
        measured, seconds = training_flops(model, batch), statistics.median(times[name][1:])
        rows.append(
            {
                "network": name,
                "device": str(device),
                "parameters": model.parameters,
                "active_parameters": active_parameters(model.network),
                "flops_per_token_measured": measured,
                "flops_per_token_analytic": analytic_flops(model, batch),
                "seconds": seconds,
                "flops_per_second": measured * tokens / seconds if measured is not None else None,
            }
        )
    return rows


def main() -> None:
    """Measures, and prints a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"width": 192, "layers": 4, "length": 128, "rows": 16, "per-token": 2, "steps": 8, "threads": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--experts", type=int, nargs="+", default=[8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    rows = measure(args)
    for row in rows:
        ratios = {f"{key}_ratio": row[key] / rows[0][key] for key in ("active_parameters", "seconds", "parameters")}
        ratios["flops_ratio"] = row["flops_per_token_measured"] / rows[0]["flops_per_token_measured"]
        if args.json:
            print(json.dumps({**row, **ratios}), flush=True)
            continue
        print(
            f"{row['network']:24} {row['parameters']:>12,} parameters (×{ratios['parameters_ratio']:.2f})   "
            f"{row['active_parameters']:>12,} active (×{ratios['active_parameters_ratio']:.3f})   "
            f"{row['flops_per_token_measured']:.4g} operations a token measured, "
            f"{row['flops_per_token_analytic']:.4g} by the formula (×{ratios['flops_ratio']:.3f})   "
            f"{1e3 * row['seconds']:.0f} ms a step (×{ratios['seconds_ratio']:.2f})   "
            f"{row['flops_per_second'] / 1e9:.1f} G a second",
            flush=True,
        )


if __name__ == "__main__":
    main()
