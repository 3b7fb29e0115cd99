"""Which tokens a pretrained network's logits really depend on, against what its reading says they may.

A library may ignore a mask without a word: a recurrent layer, a kernel that knows causal attention only, a version that
changed. So this is looked at, not believed: tokens are changed one by one, and the logits watched.

Shape letters: L tokens of the probe row, N places that the backbone reads, V vocabulary.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from remask.networks.pretrained import Backbone, PretrainedDenoiser
from remask.networks.reading import Reading

SEGMENTS = (1, 1, 1, 1, 2, 2, 2, 2)
"""The documents of the probe row."""
SMALLEST = 1e-4
"""A move of the logits, as a share of the largest, that counts as seen: far above rounding, far below a token's say."""


def due_sight(reading: Reading, segments: Int[Tensor, "1 L"]) -> Bool[Tensor, "L L"]:
    """Whether logits at i (first axis) may depend on token j (second), by the reading's mask."""
    length = segments.shape[1]
    places = torch.arange(1, length + 1, device=segments.device)[None]
    every = torch.ones_like(places, dtype=torch.bool)
    page = reading(places, segments=segments, positions=every, context=None, start_id=0, opened=1.0)
    holds = page.ids[0, :, None] == places  # which token each place reads
    sees = page.mask[0, 0] | torch.eye(page.ids.shape[1], dtype=torch.bool, device=segments.device)
    return (sees[page.outputs[0]].float() @ holds.float()) > 0


@torch.no_grad()
def true_sight(network: PretrainedDenoiser, segments: Int[Tensor, "1 L"], *, vocab_size: int) -> Bool[Tensor, "L L"]:
    """Whether logits at i (first axis) move when token j (second) is changed."""
    length = segments.shape[1]
    ids = torch.arange(length, device=segments.device) % vocab_size
    changed = torch.where(torch.eye(length, dtype=torch.bool, device=ids.device), (ids + 1) % vocab_size, ids)
    rows = torch.cat([ids[None], changed])
    every = torch.ones_like(rows, dtype=torch.bool)
    times = torch.zeros(len(rows), device=ids.device)
    logits = network(rows, times, segments=segments.expand(len(rows), -1), positions=every).float()
    own, *others = logits.split(length)
    moves = torch.stack([(other - own).abs().amax(-1) for other in others], 1)
    return moves > SMALLEST * own.abs().amax()


def attention_fault(network: PretrainedDenoiser, *, vocab_size: int) -> str | None:
    """What the backbone's attention does other than its mask says, in words; None when it does just that.

    Args:
        network: on the device it will run on.
        vocab_size: V, at least 2.
    """
    device = network.mask_embedding.device
    segments = torch.tensor([SEGMENTS], device=device)
    was_training = network.training
    network.eval()
    due, true = due_sight(network.reading, segments), true_sight(network, segments, vocab_size=vocab_size)
    network.train(was_training)
    if bool((due & ~true).any()):
        return "some tokens do not see others that the attention mask shows them"
    if bool((true & ~due).any()):
        return "some tokens see others that the attention mask hides from them"
    return None


@torch.no_grad()
def habit_fault(backbone: Backbone, *, device: torch.device, vocab_size: int) -> str | None:
    """What a backbone does other than a causal language model by itself, in words; None when it is one.

    Its logits have to be the vocabulary projection of its last hidden state, and depend on no later token.

    Args:
        backbone: in evaluation mode.
        device: where it is.
        vocab_size: V, at least 2.
    """
    ids = torch.arange(4, device=device)[None] % vocab_size
    ids = ids.repeat(2, 1)
    ids[1, -1] = (ids[1, -1] + 1) % vocab_size
    logits = backbone(input_ids=ids, use_cache=False).logits.float()
    ours = backbone.get_output_embeddings()(backbone.base_model(input_ids=ids, use_cache=False)[0]).float()
    smallest = SMALLEST * logits.abs().amax()
    if bool(((logits - ours).abs().amax() > smallest).item()):
        return "its logits are not the vocabulary projection of its last hidden state (they are scaled or capped)"
    if bool(((logits[0, :-1] - logits[1, :-1]).abs().amax() > smallest).item()):
        return "its tokens see later ones, so that it is no causal language model"
    return None
