"""Memory of Qwen1.5-MoE-A2.7B in 4 bits, predicted and measured, with random weights that are made layer by layer.

No file is read: each weight is drawn in the shape of the published one when it is its turn, quantised and let go, as it
would be read from a file. Then low-rank updates are trained for some steps (gradient checkpointing, AdamW, autocast in
what the device multiplies in), and a forward pass is made as in sampling. The embeddings stay on the CPU.

On a GPU memory is the most that torch has held of it, on a CPU the most that the process has, over what it held before;
there the drawn weights, and the embeddings, are part of it. `--layers` and `--vocabulary` make it smaller.

Run: .venv/bin/python benchmarks/qwen_moe_memory.py [--device cuda] [--layers 24] [--vocabulary 151936] [--batch 2]
     [--length 256] [--rank 16] [--steps 3]

Shape letters: B rows, L tokens a row.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remask.backbones.files import WeightFiles
from remask.backbones.layouts import layout_of, skeleton
from remask.backbones.memory import BESIDE, Wish, demands, total
from remask.backbones.placement import check_placement, device_map
from remask.backbones.published import published_config
from remask.backbones.quantised import compute_dtype, held_in_four_bits
from remask.config.adaptation import add_lora
from remask.machine import peak_memory_bytes
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.reading import read_both_ways
from remask.networks.running import Recomputed, run_in_training
from remask.optimisation import adamw

NAME = "Qwen/Qwen1.5-MoE-A2.7B"
SPREAD = 0.02
"""Standard deviation of the drawn weights: the library's `initializer_range`."""


@dataclass(frozen=True)
class Drawn:
    """Stands in for an open file: what is read is drawn, in bfloat16, on the device that will hold it."""

    shapes: dict[str, torch.Size]
    generator: torch.Generator

    def get_tensor(self, name: str) -> Tensor:
        """One weight; norms are ones."""
        shape, device = self.shapes[name], self.generator.device
        if name.endswith("norm.weight"):
            return torch.ones(shape, device=device)
        weight = torch.empty(shape, dtype=torch.bfloat16, device=device)
        return weight.normal_(std=SPREAD, generator=self.generator)


def drawn_files(config: Any, *, device: torch.device) -> WeightFiles:
    """Random weights under the names of published files."""
    model, layout = skeleton(config), layout_of(config)
    assert layout is not None
    shapes = {layout.stored(name): parameter.shape for name, parameter in model.named_parameters()}
    file = Drawn(shapes, torch.Generator(device).manual_seed(0))
    return WeightFiles(Path("random weights"), dict.fromkeys(shapes, file))


def measured(device: torch.device, work: Callable[[], Any]) -> tuple[Any, int, float]:
    """What some work gives, the most memory held by then, in bytes, and its seconds by the clock."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begun = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return found, torch.cuda.max_memory_allocated(device), time.perf_counter() - begun
    return found, peak_memory_bytes(device) or 0, time.perf_counter() - begun


def train(network: PretrainedDenoiser, ids: Tensor, *, steps: int, compute: torch.dtype) -> float:
    """Some steps on one batch of masked tokens; the last loss."""
    (optimizer,) = adamw(network, learning_rate=1e-4, weight_decay=0.0, betas=(0.9, 0.95))
    scaler = torch.amp.GradScaler(ids.device.type, enabled=compute == torch.float16)
    loss = torch.zeros((), device=ids.device)
    for _ in range(steps):
        with torch.autocast(ids.device.type, dtype=compute, enabled=compute != torch.float32):
            logits = predict(network.train(), torch.full_like(ids, network.mask_id))
        loss = torch.nn.functional.cross_entropy(logits.float(), ids.flatten())
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return loss.item()


def predict(network: PretrainedDenoiser, ids: Tensor) -> Tensor:
    """Logits at all places."""
    every = torch.ones_like(ids, dtype=torch.bool)
    times = torch.zeros(len(ids), device=ids.device)
    return network(ids, times, segments=every.long(), positions=every)


def main() -> None:
    """Prints predicted beside measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    device, config = torch.device(given.device), published_config(NAME)
    assert config is not None
    values = {**config.to_dict(), "num_hidden_layers": given.layers, "vocab_size": given.vocabulary}
    config = type(config).from_dict({key: value for key, value in values.items() if key != "layer_types"})
    compute = compute_dtype(device)
    wish = Wish(compute=compute, batch=given.batch, length=given.length, rank=given.rank)
    parts = demands(skeleton(config), wish)
    before = 0 if device.type == "cuda" else peak_memory_bytes(device) or 0

    files = drawn_files(config, device=device)
    work = lambda: held_in_four_bits(config, files, device=device, embeddings="cpu")  # noqa: E731
    backbone, opened, seconds = measured(device, work)
    mask = given.vocabulary - 1
    network = PretrainedDenoiser(backbone, reading=read_both_ways, mask_id=mask, start_id=0).to(device)
    add_lora(backbone, rank=given.rank, alpha=2.0 * given.rank, targets=None, seed=0)
    run_in_training(network.repeated_layers(), Recomputed())
    check_placement(network, device=device)
    exact = sum(part.bytes for part in parts if part.exact and part.of == "weights")
    held = sum(row.bytes for row in device_map(network) if row.component != "trained in full")
    print(f"{NAME}, {given.layers} layers, vocabulary {given.vocabulary}, on {device} in {compute}")
    print(f"weights and updates: predicted {exact:,} bytes, held {held:,}")
    print(f"opened in {seconds:.0f} s, peak {(opened - before) / 2**30:.2f} GiB")
    generator = torch.Generator(device).manual_seed(0)
    ids = torch.randint(mask, (given.batch, given.length), generator=generator, device=device)
    loss, peak, seconds = measured(device, lambda: train(network, ids, steps=given.steps, compute=compute))
    say("training", parts, peak - before, seconds / max(1, given.steps), f", loss {loss:.3f}")
    with torch.no_grad():
        _, peak, seconds = measured(device, lambda: predict(network.eval(), ids))
    say("sampling", parts, peak - before, seconds, "")


def say(what: Any, parts: Any, peak: int, seconds: float, rest: str) -> None:
    """One line: predicted without what lies beside tensors, and measured."""
    predicted = total(parts, place="device", of=what) - BESIDE
    print(f"{what}: predicted {predicted / 2**30:.2f} GiB, peak {peak / 2**30:.2f} GiB, {seconds:.1f} s a pass{rest}")


if __name__ == "__main__":
    main()
