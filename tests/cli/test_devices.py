"""Training, evaluation and sampling compute where the one key `device` says, and make nothing anywhere else.

On a machine without a GPU the commands run on a pretended MPS device, which refuses what a real one refuses.
"""

import pytest
import torch
from command import TINY, newest, succeeds

from devices import CUDA, MPS, ON_THE_CPU, Placed, Pretended, WrongPlaceError, pretended, unplaced, watching

SMALL = [*TINY, "training.steps=2", "evaluation.draws=1", "sampling.steps=2", "tokenizer.kind=byte", "data.length=8"]
RECIPES = {
    "ar": [],
    "bd3lm": ["objective.block_length=4", "sampling.block_length=4"],
    "bijective": ["objective.likelihood_warmup_ratio=0.0", "network.dropout=0.1"],
    "concept-diffusion": [
        *("data.prefix=4", "data.stride=4", "objective.nested_share=0.5"),
        *("network.encoder=recursive", "network.decoder_layers=1"),
    ],
    "concept-contrastive": ["network.rarity=0.01", "network.letters={buckets: 64}"],
    "gidd": [],
    "mdlm": ["network.time_conditioning=adaln_zero", "network.dropout=0.1"],
    "mdlm-moe": [],
    "mlm": [],
    "proofread": [],
    "sedd-absorb": [],
    "thought-arithmetic": [
        *("data.prefix=4", "data.pad=none", "objective.answer_mark=null", "sampling.guidance=1"),
        *("objective.time_warping=learned", "objective.time_exponent=1"),
    ],
    "thought-codec": ["data.prefix=4", "data.pad=none", "network.length=4", "network.latent_width=4"],
    "udlm": ["sampling.sampler=predictor_corrector"],
}
"""Recipes of every noise, and of most objectives and kinds of network → what else is set."""
SAMPLERS = ["analytic", "tau_leaping", "confidence", "entropy_bounded", "remdm", "bijective"]
FAMILIES = ["ar", "mdlm", "bijective"]
PRESENT = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def train(home, text, name: str, *, device: str) -> None:
    """Trains a recipe, which validates and draws as the recipe says."""
    succeeds("train", name, *SMALL, *RECIPES[name], f"data.source={text}", f"device={device}")
    record, _ = newest(home)
    assert record.device.startswith(device)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_every_tensor_on_the_device_it_is_given(home, text, name):
    with pretended(MPS, Placed()) as device:
        train(home, text, name, device="mps")
    assert device.used > 1000


@pytest.mark.parametrize(("device", "samplers"), [(MPS, SAMPLERS), (CUDA, ["bijective"])], ids=str)
def test_a_model_is_judged_and_drawn_from_in_every_way_on_the_device_it_is_given(home, text, device, samplers):
    train(home, text, "mdlm", device="cpu")
    tasks = ["exact-likelihood"] if device == CUDA else ["likelihood", "exact-likelihood", "levels", "quality"]
    with pretended(device, Placed()) as mode:
        chosen = [part for task in tasks for part in ("--task", task)]
        succeeds("evaluate", "last", *chosen, "--device", device.type)
        for sampler in samplers:
            succeeds("sample", "last", "--sampler", sampler, "--device", device.type)
        succeeds("encode", "last", "the list", "--device", device.type)
    assert mode.used > 1000


@pytest.mark.parametrize("device", PRESENT)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_trained_judged_and_drawn_from_on_each_device_that_is_here(home, text, name, device):
    if not PRESENT[device]:
        pytest.skip(f"this machine has no {device}")
    with watching(Placed()):
        train(home, text, name, device=device)
        succeeds("evaluate", "last", "--task", "likelihood", "--device", device)
        succeeds("sample", "last", "--device", device)


def test_the_source_names_the_device_of_every_tensor_but_where_rows_lie_on_the_cpu():
    found = list(unplaced())
    assert [place for place in found if not place.startswith(tuple(ON_THE_CPU))] == []
    idle = {part for part in ON_THE_CPU if not any(place.startswith(part) for place in found)}
    assert idle <= {"data/", "tokenizers/"}, "nothing needs these exceptions any more"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("torch.zeros(3)", "zeros without a device"),
        ("torch.rand(3, device='cpu')", "rand without a generator"),
        ("torch.ones(3, device='cpu').bernoulli_(0.5)", "bernoulli_ without a generator"),
    ],
)
def test_a_tensor_that_the_source_makes_anywhere_is_an_error(tmp_path, line, said):
    code = compile(f"import torch\ndef made():\n    return {line}", str(tmp_path / "odd.py"), "exec")
    space: dict = {}
    exec(code, space)
    with Placed(source=tmp_path), pytest.raises(WrongPlaceError, match=rf"odd.py:made \(line 3\) calls {said}"):
        space["made"]()
    with Placed({"odd.py:made": "allowed"}, source=tmp_path):
        assert len(space["made"]()) == 3
    with Placed():
        assert len(space["made"]()) == 3, "code that is not remask's may do as it likes"


def test_a_tensor_without_a_device_is_found_in_code_that_does_not_run(tmp_path):
    (tmp_path / "odd.py").write_text(
        "def f(x):\n    return torch.zeros(3)\n\ndef g(x):\n    return torch.ones(3, device=x.device)\n"
    )
    assert list(unplaced(tmp_path)) == ["odd.py:f (line 2)"]


MISTAKES = {
    "a sum of both": lambda x, y: x + y,
    "a row of both": lambda x, y: torch.cat([x, y]),
    "a lookup": lambda x, y: torch.nn.functional.embedding(x.long(), y[:, None]),
    "an index on the device into a row on the CPU": lambda x, y: y[x.long()],
    "a place for the other": lambda x, y: x.index_add_(0, y.long(), x),
    "64 bits": lambda x, y: x.to(torch.float64),
    "64 bits by the way": lambda x, y: torch.arange(3, device=x.device, dtype=torch.float64),
    "numpy": lambda x, y: x.numpy(),
    "a generator of the CPU": lambda x, y: torch.rand(3, generator=torch.Generator(), device=x.device),
    "a generator of the device": lambda x, y: torch.rand(3, generator=torch.Generator(device=x.device)),
    "a backward pass": lambda x, y: Mixing.apply(x.requires_grad_(), y).sum().backward(),
}


class Mixing(torch.autograd.Function):
    """Right forwards, wrong backwards."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.y = y
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient + torch.zeros(3, device=gradient.device) * ctx.y, None


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_pretended_device_refuses_what_a_real_one_refuses(mistake):
    with pretended(MPS):
        x, y = torch.zeros(3, device="mps"), torch.zeros(3)
        with pytest.raises(WrongPlaceError):
            MISTAKES[mistake](x, y)


def test_the_pretended_device_allows_what_a_real_one_allows():
    with pretended(MPS) as device:
        assert isinstance(device, Pretended)
        x, y = torch.zeros(3, device="mps"), torch.ones(3)
        assert (x.device, y.device, x.cpu().device, y.to("mps").device) == (MPS, y.device, y.device, MPS)
        assert (x + y.sum()).device == x[y.long() - 1].device == x.copy_(y).device == x.view(1, 3).device == MPS
        assert (x.cpu() + y).device.type == "cpu"
        linear = torch.nn.Linear(3, 2).to(MPS)
        linear(x).sum().backward()
        assert linear.weight.grad is not None
        assert linear.weight.grad.device == linear.weight.device == MPS
        torch.testing.assert_close(linear.weight.grad.cpu(), torch.ones(2, 3))
    assert torch.zeros(3).device.type == "cpu"
