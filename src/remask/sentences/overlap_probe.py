r"""What a linear probe reads of two sentences: how much of each the other holds, and what names they hold.

Frozen concepts say all of it. With s_u, s_v the sums of what each sentence finds in the other (overlap.py) and x, y
what each holds by name (names.py), the features of a pair are

    [a z(s_u + s_v); a z(|s_u − s_v|); a z(whole); b |x − y|; b BOTH x·y],   a = SUMS_SAY, b = NAMES_SAY,     (1)

of each band of features where concepts have some, names of the first; z: standardised on the training pairs. Which of
the two sentences is the first makes no difference but in what `whole` says of lengths. A pair is described by a few
sums and by thousands of names of which it holds some twenty: a penalty that shares the fit out between them leaves what
a fine-tuned head would forget of the sums.

Shape letters: n pairs, B pairs read at once, F sums, V tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remask.sentences.encoders import AT_ONCE, Encoded, Ids, padded
from remask.sentences.finetuning import Subject
from remask.sentences.heads import SHARPNESS
from remask.sentences.metrics import Numbers
from remask.sentences.names import BOTH, Naming, own_concepts
from remask.sentences.overlap import both_ways, in_bands, trimmed, whole

SUMS_SAY, NAMES_SAY = 0.2, 0.6
"""a and b of (1): the penalties of sparse probes suit features of about that size (probes.py)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clues:
    """What two sentences say of each other.

    Attributes:
        sums: of what is found, of all bands [n F].
        names: |x − y| and BOTH x·y, sparse [n 2V].
    """

    sums: Numbers
    names: Any


@torch.no_grad()
def clues(subject: Subject, pairs: Sequence[Sequence[str]]) -> Clues:
    """The clues of pairs of sentences, read by a frozen network.

    Args:
        subject: who reads; its network is in evaluation mode behind it.
        pairs: the first sentences, and the second ones.
    """
    from scipy import sparse

    network, wording = subject.network.eval(), subject.wording
    bands = getattr(network, "bands", 1)
    own = own_concepts(network, subject.read, tokens=wording.tokenizer.vocab_size, bands=bands)
    naming = Naming(own)
    first, second = (wording.alone(texts) for texts in pairs)
    order = np.argsort([max(map(len, rows)) for rows in zip(first, second, strict=True)], kind="stable")
    sums, names = [], []
    for start in range(0, len(order), AT_ONCE):
        chosen = order[start : start + AT_ONCE].tolist()
        u, v = (_encoded(subject, [rows[k] for k in chosen]) for rows in (first, second))
        sums.append(_sums(u, v, bands=bands).float().cpu().numpy())
        x, y = (naming.amounts(in_bands(side, bands)[0]).float().cpu().numpy() for side in (u, v))
        names.append(sparse.csr_matrix(np.concatenate([np.abs(x - y), BOTH * x * y], axis=1)))
    back = np.argsort(order)
    return Clues(sums=np.concatenate(sums)[back], names=sparse.csr_matrix(sparse.vstack(names))[back])


def features(train: Clues, reported: Clues) -> tuple[Any, Any]:
    """The features (1) of training pairs and of reported ones, sparse [n F + 2V]."""
    from scipy import sparse

    mean, spread = train.sums.mean(0), train.sums.std(0)
    spread = np.where(spread > 1e-6, spread, 1.0)  # what is the same of all pairs says nothing

    def joined(each: Clues) -> Any:
        sums = sparse.csr_matrix(SUMS_SAY * (each.sums - mean) / spread)
        return sparse.hstack([sums, NAMES_SAY * each.names], format="csr")

    return joined(train), joined(reported)


def _encoded(subject: Subject, rows: Sequence[Ids]) -> Encoded:
    device = next(subject.network.parameters()).device
    ids, real = padded(rows, fill=subject.wording.tokenizer.eos_id, device=device)
    return trimmed(subject.read(subject.network, ids, real))


def _sums(u: Encoded, v: Encoded, *, bands: int) -> Tensor:
    """What both sentences' sums say together, and what they say apart, of each band [B F]."""
    told = []
    for one, other in zip(in_bands(u, bands), in_bands(v, bands), strict=True):
        there, back = (found.sums for found in both_ways(one, other, sharpness=one.vectors.new_tensor(SHARPNESS)))
        told += [there + back, (there - back).abs(), whole(one, other)]
    return torch.cat(told, -1)
