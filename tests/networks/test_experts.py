"""A mixture of experts: equal to what it is made of, evenly used, and the same however a step is computed."""

from functools import partial

import pytest
import torch
from torch import nn

from remask.checkpoints import Checkpoints
from remask.config.build import build_model
from remask.config.load import load_recipe
from remask.networks.blocks import GatedMLP
from remask.networks.experts import Experts
from remask.networks.running import Recomputed, run_in_training
from remask.randomness import keyed_generator
from remask.tokenizers import ByteTokenizer
from remask.training import TrainingState, load_figures
from tiny import EXPERTS, V, differing, everything, pattern_batches, run_steps, tiny_network, tiny_state

D, HIDDEN = 8, 6
CPU = torch.device("cpu")


def mixture(experts: int, per_token: int, *, rate: float = 0.01, seed: int = 1) -> Experts:
    module = Experts(D, HIDDEN, experts=experts, per_token=per_token, balance_rate=rate).double()
    generator = keyed_generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module


def inputs(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, D, generator=keyed_generator(seed), dtype=torch.float64)


def by_the_equation(module: Experts, x: torch.Tensor) -> torch.Tensor:
    """Equation (1) token by token, every expert asked."""
    rows = []
    for token in x.reshape(-1, D):
        scores = (module.router.weight @ token).softmax(-1)
        ranked = sorted(range(len(scores)), key=lambda e: -float((scores[e] + module.balance_bias[e]).detach()))
        rows.append(sum(scores[e] * module.experts[e](token) for e in ranked[: module.per_token]))
    return torch.stack(rows).view(x.shape)


# --- equation (1) ----------------------------------------------------------------------------------------------------


def test_one_expert_is_the_gated_mlp_bit_for_bit():
    module, dense = mixture(1, 1), GatedMLP(D, HIDDEN).double()
    dense.load_state_dict(module.experts[0].state_dict())
    x = inputs(3, 5)
    assert torch.equal(module(x), dense(x))


@pytest.mark.parametrize(("experts", "per_token"), [(4, 1), (4, 2), (5, 3), (3, 3)])
def test_the_output_is_the_weighted_sum_over_the_chosen_experts(experts, per_token):
    module, x = mixture(experts, per_token), inputs(3, 5)
    with torch.no_grad():
        module.balance_bias.copy_(torch.linspace(-0.2, 0.2, experts))
    torch.testing.assert_close(module(x), by_the_equation(module, x), rtol=1e-12, atol=1e-12)


def test_all_experts_together_are_the_mean_of_all_by_their_scores():
    module, x = mixture(4, 4), inputs(2, 3)
    scores = (x @ module.router.weight.T).softmax(-1)
    expected = sum(scores[..., e, None] * module.experts[e](x) for e in range(4))
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


def test_the_order_of_experts_does_not_matter():
    module, x = mixture(5, 2), inputs(4, 6)
    other, order = mixture(5, 2), [3, 0, 4, 1, 2]
    with torch.no_grad():
        other.router.weight.copy_(module.router.weight[order])
    for place, e in enumerate(order):
        other.experts[place].load_state_dict(module.experts[e].state_dict())
    torch.testing.assert_close(other(x), module(x), rtol=1e-12, atol=1e-13)


def test_gradients_agree_with_finite_differences():
    module, x = mixture(4, 2), inputs(2, 3).requires_grad_()
    weights = [p for p in module.parameters() if p.requires_grad]

    def output(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return module(x)

    assert torch.autograd.gradcheck(output, (x, *weights), fast_mode=True)


def test_the_balance_chooses_and_does_not_weigh():
    """An expert that is forced on all tokens counts by its score, and the balance has no gradient."""
    module, x = mixture(4, 1), inputs(6, 1)
    with torch.no_grad():
        module.balance_bias[2] = 9.0
    scores = (x @ module.router.weight.T).softmax(-1)
    torch.testing.assert_close(module(x), scores[..., 2, None] * module.experts[2](x), rtol=1e-12, atol=1e-12)
    assert not module.balance_bias.requires_grad


def test_a_token_gets_the_same_output_in_any_company():
    module, x = mixture(6, 2), inputs(3, 7)
    with torch.no_grad():
        alone = torch.cat([module(token[None, None]) for token in x.view(-1, D)])
    torch.testing.assert_close(module(x).view(-1, 1, D), alone, rtol=1e-12, atol=1e-14)


def test_scores_are_float32_under_autocast():
    module = mixture(4, 2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, chosen = module.choose(inputs(9).float())
        assert module(inputs(1, 9).float()).dtype == torch.bfloat16  # as of a gated MLP
    exact, also = module.choose(inputs(9).float())
    assert torch.equal(scores, exact)
    assert torch.equal(chosen, also)


def test_an_expert_that_nobody_chose_has_a_gradient_of_zero_rather_than_none():
    """Processes that exchange gradients must all have the same ones."""
    module = mixture(4, 1)
    with torch.no_grad():
        module.balance_bias[0] = 9.0
    module(inputs(2, 2)).sum().backward()
    for expert in module.experts[1:]:
        assert all(p.grad is not None and not p.grad.any() for p in expert.parameters())


# --- the balance -----------------------------------------------------------------------------------------------------


def test_counts_are_of_real_tokens_in_training_alone():
    module, x = mixture(4, 2), inputs(2, 5)
    real = torch.tensor([[True] * 5, [True, True, False, False, False]])
    chosen = module.choose(x[real])[1]
    module(x, real=real)
    assert torch.equal(module.counted(), chosen.flatten().bincount(minlength=4).float())
    before = module.counted()
    with torch.no_grad():
        module(x, real=real)
    module.eval()(x, real=real)
    assert torch.equal(module.counted(), before)
    module.train()(x)
    assert module.counted().sum() == 2 * 7 + 2 * 10
    module.begin_count()
    assert not module.counted().any()


def test_a_step_raises_what_is_used_too_little_and_lowers_what_is_used_too_much():
    module = mixture(4, 2, rate=0.25)
    module.steer(torch.tensor([10.0, 2.0, 4.0, 0.0]))
    assert module.balance_bias.tolist() == [-0.25, 0.25, 0.0, 0.25]
    assert load_figures(nn.ModuleList([module])) == {"expert_load": 10 / 16, "expert_load_even": 0.25}


@pytest.mark.parametrize(("rate", "spread"), [(0.005, True), (0.0, False)])
def test_tokens_that_all_choose_one_expert_are_spread_out_by_the_balance_alone(rate, spread):
    """Without it, and without any training, they stay where they are."""
    module, x = mixture(4, 1, rate=rate), inputs(25, 8)
    with torch.no_grad():
        module.router.weight *= 0.5
        x[..., 0] = 3.0
        module.router.weight[:, 0] = torch.tensor([1.5, 0.0, 0.0, 0.0])
    shares = []
    for _ in range(150):
        module.begin_count()
        module(x)
        module.steer(module.counted())
        shares.append(load_figures(nn.ModuleList([module]))["expert_load"])
    assert shares[0] > 0.99
    assert (max(shares[-20:]) < 0.4) == spread
    assert (min(shares) > 0.99) != spread


# --- in a network ----------------------------------------------------------------------------------------------------


def fresh(*, seed: int = 1) -> TrainingState:
    return tiny_state(optimizer="muon", seed=seed, mlp=EXPERTS)


def biases(network: nn.Module) -> torch.Tensor:
    return torch.cat([part.balance_bias.detach() for part in balanced(network)])


def balanced(network: nn.Module) -> list[Experts]:
    return [part for part in network.modules() if isinstance(part, Experts)]


def test_padding_changes_no_logits_and_no_load():
    network, z = tiny_network(mlp=EXPERTS).double(), torch.arange(V - 1).repeat(2, 2)
    positions, counts = torch.ones_like(z, dtype=torch.bool), []
    logits = []
    for padding in (0, 3):
        (part,) = balanced(network)
        part.begin_count()
        pad = partial(nn.functional.pad, pad=(0, padding))
        row = {"segments": pad(positions.long()), "positions": pad(positions)}
        logits.append(network(pad(z), torch.zeros(2, dtype=torch.float64), **row))
        counts.append(part.counted())
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(counts[0], counts[1])
    assert counts[0].sum() == 2 * z.numel()


def test_micro_batches_and_recomputation_give_the_same_balance_bit_for_bit():
    found = {}
    for name, micro in {"whole": 8, "parts": 2, "again": 4}.items():
        state = fresh()
        if name == "again":
            run_in_training(state.network.blocks, Recomputed())
        run_steps(state, 4, batches=pattern_batches(micro=micro))
        found[name] = biases(state.network)
        assert load_figures(state.network)["expert_load"] > 0.25
    assert found["whole"].any()
    assert torch.equal(found["whole"], found["parts"])
    assert torch.equal(found["whole"], found["again"])


def test_a_resumed_training_goes_on_bit_for_bit(tmp_path):
    first, second = fresh(), fresh(seed=2)
    run_steps(first, 3)
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(first, extra={})
    run_steps(first, 6)
    checkpoints.load_newest(second)
    assert biases(second.network).any()
    run_steps(second, 6)
    assert differing(everything(first), everything(second)) == []


def test_a_step_that_is_left_out_leaves_the_balance_as_it_is():
    state = fresh()

    class Refuses:
        def before_update(self, seen: object) -> bool:
            return False

        def after_update(self, step: int) -> None:
            pass

    run_steps(state, 2, guard=Refuses())
    assert not biases(state.network).any()
    assert load_figures(state.network) == {}


def test_an_expert_that_a_few_tokens_never_chose_raises_no_alarm():
    """Without a balance, all tokens choose the same ones in every step; the alarm is for weights nothing can reach."""
    state = tiny_state(mlp=partial(Experts, experts=4, per_token=1, balance_rate=0.0))
    (part,) = balanced(state.network)
    with torch.no_grad():
        part.balance_bias[0] = 9.0
    run_steps(state, 12)
    assert part.load is not None
    assert part.load[0] == part.load.sum()


def test_muon_orthogonalises_each_experts_own_matrices():
    network = tiny_network(mlp=EXPERTS)
    hidden, (part,) = {id(p) for p in network.hidden_matrices()}, balanced(network)
    assert {id(p) for p in part.parameters() if p.requires_grad} <= hidden
    assert id(part.balance_bias) not in hidden


def test_the_recipe_has_the_active_parameters_of_the_dense_one_but_for_the_router():
    models = {
        name: build_model(load_recipe(name, ["network.width=64", "network.heads=2"]), ByteTokenizer(), device=CPU)
        for name in ("mdlm", "mdlm-moe")
    }
    parts = balanced(models["mdlm-moe"].network)
    routers = sum(part.router.weight.numel() + part.balance_bias.numel() for part in parts)
    unused = sum(p.numel() for part in parts for p in part.unused())
    assert len(parts) == 4
    assert models["mdlm-moe"].parameters - unused == models["mdlm"].parameters + routers
    assert unused == 3 * sum(p.numel() for part in parts for e in part.experts[:2] for p in e.parameters())
