"""A number added to the logit of [MASK], stored with the weights.

Shape letters: B batch, L length, V vocabulary, M positions at which logits are wanted.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class MaskBias(nn.Module):
    """A network whose [MASK] logit is shifted by `mask_logit_bias`, in training and in sampling alike.

    The bias is a parameter without gradient: no optimiser moves it, its owner writes it, and it travels with the
    weights wherever they go (checkpoints, the saved model, the moving average, which so belongs to the averaged
    weights). It has shape [1], since sharded training takes no scalars.

    Args:
        network: emits logits over all ids, [MASK] included.
        mask_id: the column that is shifted.
    """

    def __init__(self, network: nn.Module, mask_id: int) -> None:
        super().__init__()
        self.network = network
        self.mask_id = mask_id
        device = next(network.parameters()).device
        self.mask_logit_bias = nn.Parameter(torch.zeros(1, device=device), requires_grad=False)

    def forward(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "M V"]:
        """The network's logits, those of [MASK] shifted."""
        logits = self.network(z, t, segments=segments, positions=positions)
        mask = torch.tensor([self.mask_id], device=logits.device)
        shift = self.mask_logit_bias.detach().to(logits.dtype).expand(logits.shape[0], 1)
        return logits.index_add(-1, mask, shift)

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The network's own: what Muon orthogonalises."""
        yield from getattr(self.network, "hidden_matrices")()  # noqa: B009

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The network's own: what is sharded, compiled or computed again as one."""
        yield from getattr(self.network, "repeated_layers")()  # noqa: B009

    def begin_step(self, step: int) -> None:
        """Tells a network that changes as training goes on which optimiser step begins; others hear nothing."""
        begin = getattr(self.network, "begin_step", None)
        if begin is not None:
            begin(step)
