"""The transformer over noisy vectors, and the network that has it between an encoder and a decoder."""

import pytest
import torch

from remask.gaussian import CLEAN, VELOCITY, CosineNoise
from remask.networks.latent import LatentTransformer
from remask.randomness import keyed_generator


def network(**changes) -> LatentTransformer:
    size = {"vectors": 4, "features": 6, "width": 16, "layers": 2, "heads": 2, "mlp_width": 32, "dropout": 0.0}
    made = LatentTransformer(**size | changes)
    made.initialise(keyed_generator(1, "weights"))
    return made


def vectors(count: int = 3, *, seed: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 6, generator=torch.Generator().manual_seed(seed))


def times(count: int = 3) -> torch.Tensor:
    return torch.linspace(0.3, 0.9, count, dtype=torch.float64)


def unlocked() -> LatentTransformer:
    """With gates that are open, so that blocks matter."""
    made = network()
    for name, parameter in made.named_parameters():
        if "modulation" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(4))
    return made


def test_gates_are_zero_and_little_is_said_after_initialisation():
    made = network()
    assert all(not p.any() for n, p in made.named_parameters() if "modulation" in n)
    said = made(vectors(64), times(64))
    assert 0.001 < float(said.square().mean()) < 0.05


def test_what_is_said_depends_on_the_time_and_on_the_other_vectors_once_gates_open():
    made, z = unlocked(), vectors()
    said = made(z, times())
    assert float((made(z, times() + 0.05) - said).abs().max()) > 1e-3
    moved = z.clone()
    moved[:, 3] += 1.0
    assert float((made(moved, times()) - said)[:, 0].abs().max()) > 1e-4


def test_every_vector_has_a_place_of_its_own():
    made, z = unlocked(), vectors(1).expand(3, 4, 6)
    alike = z[:, :1].expand(3, 4, 6)
    said = made(alike, times())
    assert float((said[:, 0] - said[:, 1]).abs().max()) > 1e-3


def test_vectors_that_are_not_there_change_nothing_and_break_nothing():
    made, z = unlocked(), vectors()
    real = torch.tensor([[True, True, True, False], [True] * 4, [False] * 4])
    said = made(z, times(), real=real)
    other = z.clone()
    other[0, 3] = 7.0
    assert bool(said.isfinite().all())
    torch.testing.assert_close(made(other, times(), real=real)[0, :3], said[0, :3], rtol=0, atol=1e-6)
    torch.testing.assert_close(made(z, times())[1], said[1], rtol=0, atol=1e-6)


def test_the_answer_has_the_precision_of_the_question_and_rows_do_not_mix():
    made, z = unlocked(), vectors()
    assert made(z.double(), times()).dtype == torch.float64
    torch.testing.assert_close(made(z[1:2], times()[1:2])[0], made(z, times())[1], rtol=0, atol=1e-6)


def test_all_weights_get_a_gradient_within_two_steps():
    made = network()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    moved: set[str] = set()
    for _ in range(3):
        optimizer.zero_grad()
        (made(vectors(), times()) - vectors(seed=9)).square().mean().backward()
        moved |= {name for name, p in made.named_parameters() if p.grad is not None and bool(p.grad.any())}
        optimizer.step()
    assert moved == {name for name, _ in made.named_parameters()}


def test_muon_is_given_the_matrices_inside_blocks_alone():
    made = network()
    hidden = {id(p) for p in made.hidden_matrices()}
    names = {name for name, p in made.named_parameters() if id(p) in hidden}
    assert names
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in names)


def test_training_begins_at_the_linear_filter():
    """A velocity of nearly 0 is the best linear filter of vectors of unit variance: its error is the filter's."""
    process, made = CosineNoise(), network()
    x = vectors(4000)
    noise, t = vectors(4000, seed=8), times(4000)
    z = process.corrupt(x, t, noise=noise)
    error = VELOCITY.clean(process, z, made(z, t), t) - x
    floor = CLEAN.linear_floor(process, t, variance=1.0)
    assert float((error.square().mean((1, 2)) / floor).mean()) == pytest.approx(1.0, abs=0.05)
