"""A device without float64 (MPS) trains, is judged and sampled: nothing there is ever wider than float32."""

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from remask.evaluation.likelihood import row_likelihoods
from remask.model import Model
from remask.objectives import LikelihoodBound, NextToken, masking_integrand, spread_integrand
from remask.processes import Hybrid, Masking, Uniform
from remask.randomness import keyed_generator, widest_float
from remask.samplers import ancestral, blank_prompt, confidence, left_to_right, reshape_distribution
from remask.schedules import LogLinear, time_grid
from remask.tokenizers import character_tokenizer
from tiny import V, pattern_batches, run_steps, tiny_state

TOKENIZER = character_tokenizer(["abcde"])
COMMON = {"schedule": LogLinear(0.01), "vocab_size": V, "mask_id": TOKENIZER.mask_id}
PROCESSES = {
    "masking": Masking(**COMMON),
    "uniform": Uniform(**COMMON),
    "hybrid": Hybrid(**COMMON, uniform_share=0.2),
    "none": None,
}


class NoDoubles(TorchDispatchMode):
    """Fails where an operation makes a float64 tensor, as MPS does; what is moved to numpy is the CPU's own."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else (result,)
        tensors = [x for x in made if isinstance(x, torch.Tensor)]
        # Python's numbers pass as float64 scalars of the CPU on every device
        assert not any(x.dtype == torch.float64 and x.ndim for x in tensors), f"{func} made a float64 tensor"
        return result


@pytest.mark.parametrize("noise", PROCESSES)
def test_without_float64_everything_still_runs(noise, monkeypatch):
    for name, module in list(sys.modules.items()):
        if name.startswith("remask.") and hasattr(module, "widest_float"):
            monkeypatch.setattr(module, "widest_float", lambda device: torch.float32)
    process = PROCESSES[noise]
    state = tiny_state(optimizer="muon", causal=process is None)
    objective = NextToken(mask_id=TOKENIZER.mask_id)
    if process is not None:
        integrand = masking_integrand if noise == "masking" else spread_integrand
        objective = LikelihoodBound(process=process, integrand=integrand, t_min=1e-3)
    model = Model(network=state.network, process=process, objective=objective, tokenizer=TOKENIZER, length=12)
    batch = next(pattern_batches())[0]
    with NoDoubles():
        run_steps(state, 2, objective=objective)
        sums = row_likelihoods(model, [batch], draws=2, seed=1, end_share=0.1)
        common = {"prompt": blank_prompt(2, 12), "generator": keyed_generator(1)}
        common["transform"] = reshape_distribution(temperature=0.9, top_p=0.9)
        drawn = [left_to_right(model, **common)] if process is None else [ancestral(model, time_grid(4), **common)]
        if noise == "masking":
            drawn.append(confidence(model, time_grid(4), **common))
    assert (sums.nats > 0).all()
    for tokens in drawn:
        assert (tokens != TOKENIZER.mask_id).all()


def test_only_mps_is_narrow():
    assert widest_float("mps") == torch.float32
    assert widest_float("cpu") == widest_float(torch.device("cuda", 1)) == torch.float64
