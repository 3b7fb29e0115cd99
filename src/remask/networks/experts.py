"""A gated MLP for each of several experts, of which every token uses a few.

A router gives each token x a score for every expert, and the token's output is a weighted sum over the k experts that
are chosen for it (arXiv:2101.03961, equations 1 and 2; arXiv:2408.15664, equation 1):

    s = softmax(W x),    chosen = the k largest of s + b,    y = Σ_{e chosen} s_e · MLP_e(x).                (1)

The weights are the scores themselves, not made to add up to 1, so that the router learns for k = 1 too. All of it is
computed for the chosen experts alone, and no token is ever left out.

Nothing in (1) keeps all tokens from going to one expert, which then learns fastest. The balance b sees to that, without
a term in the loss (arXiv:2408.15664, algorithm 1): it is used for choosing only, gets no gradient, and after each
optimiser step is moved by a fixed rate γ towards an even load, with n_e the tokens of that step that chose e:

    b_e ← b_e + γ · sign(mean(n) − n_e).                                                                     (2)

Shape letters: B batch, L length, N = B·L tokens, D width, E experts, K experts a token.
"""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.networks.blocks import GatedMLP


class Experts(nn.Module):
    """Equation (1) in the place of a `GatedMLP`.

    The balance is a parameter without gradient: no optimiser moves it, `steer` does, and it travels with the weights
    wherever they go (checkpoints, the saved model, the moving average, which so belongs to the averaged weights).

    Args:
        width: D.
        hidden: hidden features of each expert.
        experts: E.
        per_token: K, from 1 to E.
        balance_rate: γ of equation (2), in units of the scores; 0 leaves the load as it comes.

    Attributes:
        load: how often each expert was chosen in the last step that `steer` was told of, or None before the first [E].
    """

    def __init__(self, width: int, hidden: int, *, experts: int, per_token: int, balance_rate: float) -> None:
        super().__init__()
        assert 1 <= per_token <= experts
        self.per_token, self.balance_rate = per_token, balance_rate
        self.router = nn.Linear(width, experts, bias=False)
        self.balance_bias = nn.Parameter(torch.zeros(experts), requires_grad=False)
        self.experts = nn.ModuleList(GatedMLP(width, hidden) for _ in range(experts))
        self.load: Float[Tensor, "E"] | None = None
        # not a buffer: copies of a network on several processes are made to have equal buffers
        self._counted: Int[Tensor, "E"] | None = None

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B L D"], *, real: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """Each token's weighted sum; in training, with a gradient, its choices are counted.

        A layer that is computed again for its gradient counts twice, all of its tokens alike, so that neither the
        signs of equation (2) nor the shares of the load change.

        Args:
            x: what the experts read.
            real: the tokens that count towards the load; None: all of them. Padding is computed like any other token.
        """
        # How many tokens an expert gets changes with every batch, and a compiler would make a program for each number.
        # As a decorator `disable` would load the compiler wherever this module is imported.
        mix: Callable[..., Tensor] = self._mix
        if torch.compiler.is_compiling():
            mix = cast(Callable[..., Tensor], torch.compiler.disable(self._mix))
        return mix(x, real)

    def _mix(self, x: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"] | None) -> Float[Tensor, "B L D"]:
        tokens = x.flatten(0, -2)
        scores, chosen = self.choose(tokens)
        if self.training and torch.is_grad_enabled():
            self._count(chosen if real is None else chosen[real.flatten()])
        order = chosen.flatten().argsort(stable=True)  # tokens of one expert side by side
        sizes = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        # each token is copied K times first: an index that names no row twice has a gradient without collisions, which
        # is the same on every device and in every run
        copies = tokens[:, None].expand(-1, self.per_token, -1).flatten(0, 1).index_select(0, order)
        # an expert without a token is called all the same: processes that share weights must all have its gradient
        parts = [expert(part) for expert, part in zip(self.experts, copies.split(sizes), strict=True)]
        outputs = torch.cat(parts)
        outputs = torch.empty_like(outputs).index_copy(0, order, outputs).unflatten(0, (-1, self.per_token))
        return (outputs * scores[..., None].to(outputs.dtype)).sum(1).view(x.shape)

    def choose(self, tokens: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
        """The scores of each token's experts, at least float32 whatever the autocast, and which they are."""
        wide = torch.promote_types(tokens.dtype, torch.float32)
        with torch.autocast(tokens.device.type, enabled=False):
            scores = functional.linear(tokens.to(wide), self.router.weight.to(wide)).softmax(-1)
            chosen = (scores.detach() + self.balance_bias.to(wide)).topk(self.per_token).indices
        return scores.gather(-1, chosen), chosen

    def _count(self, chosen: Int[Tensor, "M K"]) -> None:
        counts = chosen.flatten().bincount(minlength=len(self.experts))
        self._counted = counts if self._counted is None else self._counted + counts

    # ── the balance ─────────────────────────────────────────────────────────────────────────────────────────────

    def begin_count(self) -> None:
        """Forgets the choices counted so far."""
        self._counted = None

    def counted(self) -> Float[Tensor, "E"]:
        """How often each expert was chosen since `begin_count`, by this process's tokens."""
        counts = self.balance_bias.new_zeros(len(self.experts), dtype=torch.float32)
        return counts if self._counted is None else counts + self._counted

    @torch.no_grad()
    def steer(self, load: Float[Tensor, "E"]) -> None:
        """Makes the step of equation (2).

        Args:
            load: how often each expert was chosen, by the tokens of all processes.
        """
        self.load = load
        self.balance_bias.add_(self.balance_rate * (load.mean() - load).sign().to(self.balance_bias.dtype))

    def chosen_parameters(self) -> Iterator[nn.Parameter]:
        """The experts' weights: in a small batch no token may choose some of them."""
        return self.experts.parameters()

    def unused(self) -> Iterator[nn.Parameter]:
        """The weights that one token leaves alone: those of as many experts as are not chosen."""
        for expert in list(self.experts)[self.per_token :]:
            yield from expert.parameters()
