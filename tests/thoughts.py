"""Networks of thoughts at toy size: random ones, and one that knows the true posterior of a law of two-token texts.

Letters: B rows, L places, W features of a vector, V vocabulary.
"""

from dataclasses import dataclass, field, replace

import torch

from doubles import full_batch
from remask.data.batch import Batch
from remask.gaussian import CLEAN, CosineNoise, GaussianProcess, Prediction
from remask.model import Model
from remask.networks.thought import LearnedTable, OwnTable, ScratchTrunk, ThoughtNetwork
from remask.networks.thought.network import BIDIRECTIONAL
from remask.objectives.gaussian import LatentDiffusion, own_error
from remask.objectives.readouts import TokenReadout, VectorReadout
from remask.objectives.thought import ThoughtDiffusion, cross_entropy, skill_of
from remask.objectives.written_answers import WrittenAnswers
from remask.randomness import keyed_generator
from remask.tokenizers import CharacterTokenizer

TOKENIZER = CharacterTokenizer("#0123456789=?")
V, EOS, MASK = TOKENIZER.vocab_size, TOKENIZER.eos_id, TOKENIZER.mask_id
ANSWERS = WrittenAnswers(marks=((TOKENIZER.encode("#").ids[0].item(),),), eos_id=EOS, weight=1.0, share=1.0, latest=0.3)


def thought_network(
    *, width=16, layers=2, latent="learned", latent_width=4, sight=BIDIRECTIONAL, remembers=True, speaks=None, seed=1
) -> ThoughtNetwork:
    """A random one."""
    trunk = ScratchTrunk(vocab_size=V, width=width, layers=layers, heads=2, mlp_width=2 * width)
    trunk.initialise(keyed_generator(seed, "trunk"))
    codec = OwnTable(trunk.embedding)
    if latent == "learned":
        codec = LearnedTable(vocab_size=V, width=latent_width)
        codec.initialise(keyed_generator(seed, "table"))
    network = ThoughtNetwork(trunk, codec, sight=sight, start_id=EOS, remembers=remembers, speaks=speaks)
    network.initialise(keyed_generator(seed, "thought"))
    return network


def shaken(network: ThoughtNetwork, *, seed: int = 2) -> ThoughtNetwork:
    """A network none of whose weights is at its start any more: what begins at zero has a say."""
    generator = keyed_generator(seed, "shaken")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def diffusion(*, prediction: Prediction = CLEAN, process: GaussianProcess | None = None, t_min: float = 1e-3):
    return LatentDiffusion(
        process=process or CosineNoise(), prediction=prediction, weighting=own_error(prediction), t_min=t_min
    )


def thought_objective(*, vectors: bool = False, loss=cross_entropy, memory=0.5, answers=None, **noise):
    """An objective of thoughts, of all that the tests of one share."""
    of = diffusion(**noise)
    readout = VectorReadout if vectors else TokenReadout
    return ThoughtDiffusion(
        diffusion=of,
        loss=loss,
        readout=readout(diffusion=of, mask_id=MASK),
        memory=memory,
        answers=answers,
        skill=skill_of(of),
    )


def thought_model(network, objective) -> Model:
    process = objective.diffusion.process
    return Model(network=network, process=process, objective=objective, tokenizer=TOKENIZER, length=12)


def question_rows(texts=("1=?2#34", "5=?6#70", "8=?99#1"), *, length: int = 10) -> Batch:
    """Rows of a question up to `?`, its response, and ends of text up to `length`."""
    ids = torch.full((len(texts), length), EOS)
    targets = torch.ones(len(texts), length, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.from_numpy(TOKENIZER.encode(text).ids).long()
        targets[row, : text.index("?") + 1] = False
    return replace(full_batch(ids), targets=targets)


@dataclass(eq=False)
class Knowing(torch.nn.Module):
    """The true posterior of each token, by Bayes' rule under a law [V V] of texts of two tokens."""

    law: torch.Tensor
    table: torch.Tensor
    process: GaussianProcess = field(default_factory=CosineNoise)

    def __post_init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    @property
    def codec(self) -> "Knowing":
        return self

    @property
    def width(self) -> int:
        return self.table.shape[1]

    def vectors(self) -> torch.Tensor:
        return self.table

    def forward(self, z, t, *, ids, noisy, segments, before, positions):
        assert bool(noisy.all())
        alpha, sigma = (value[:, None, None] for value in self.process.coefficients(t.to(z.dtype)))
        far = torch.cdist(z, alpha * self.table).square() / (2.0 * sigma.square())  # [B 2 V]
        joint = self.law.log()[None] - far[:, 0, :, None] - far[:, 1, None, :]
        joint = joint.flatten(1).log_softmax(-1).view(joint.shape)
        return torch.stack([joint.logsumexp(2), joint.logsumexp(1)], 1)[positions]


def random_law(*tokens: int, seed: int = 0) -> torch.Tensor:
    """A law over the pairs of some tokens."""
    law = torch.zeros(V, V, dtype=torch.float64)
    draw = torch.rand(len(tokens), len(tokens), generator=keyed_generator(seed, "law"), dtype=torch.float64)
    law[torch.tensor(tokens)[:, None], torch.tensor(tokens)] = (3.0 * draw).exp()
    return law / law.sum()


def random_table(width: int, *, seed: int = 0) -> torch.Tensor:
    """Vectors of mean square 1, float64."""
    table = torch.randn(V, width, generator=keyed_generator(seed, "vectors"), dtype=torch.float64)
    return table / table.square().mean(-1, keepdim=True).sqrt()
