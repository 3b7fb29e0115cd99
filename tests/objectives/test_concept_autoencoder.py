"""The autoencoder of texts: what noise lies on its concepts, which rows go without any, and what its encoder reads.

Shape letters: B rows, L places, C concepts, W features of a concept.
"""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch

from concept_readers import PROCESS, Spy, reader, rows
from remask.gaussian import CosineNoise
from remask.networks.concepts import Concepts
from remask.objectives import LikelihoodBound, masking_integrand
from remask.objectives.concepts.autoencoder import ConceptAutoencoder
from remask.objectives.concepts.channel import LatentChannel
from remask.randomness import keyed_generator

C, W, T0 = 2, 3, 0.25
ALPHA, SIGMA = math.cos(math.pi * T0 / 2), math.sin(math.pi * T0 / 2)
OBJECTIVE = ConceptAutoencoder(
    bound=LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-2),
    channel=LatentChannel(process=CosineNoise(), time=T0, concepts=C, width=W),
)
USES = {
    "training": lambda network, batch: OBJECTIVE(network, batch, generator=noise()),
    "judging": lambda network, batch: OBJECTIVE.assess(network, batch, generator=noise(), draws=2),
    "rebuilding": lambda network, batch: OBJECTIVE.rebuild(network, batch, generator=noise()),
}
each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


def noise(seed: int = 1):
    return keyed_generator(seed, "noise")


@dataclass
class Listening(Spy):
    """Keeps what its decoder would be given, too."""

    given: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, z, t, *, hear=None, **told):
        assert hear is not None

        def heard(concepts: Concepts) -> None:
            self.given.append(hear(concepts).vectors)

        return super().__call__(z, t, hear=heard, **told)


@each_use
def test_a_decoder_is_given_concepts_with_the_noise_of_the_channel_on_them(use) -> None:
    """Their mean is α f and their standard deviation σ, in each coordinate, within four standard errors."""
    count = 4000
    f = torch.tensor([[1.5, -2.0, 0.0], [0.5, 1.0, -1.0]])
    listening = Listening(vectors=f.expand(count, C, W))
    use(listening, rows(count=count, length=3))
    assert listening.given
    for z in listening.given:
        assert ((z.mean(0) - ALPHA * f).abs() < 4 * SIGMA / math.sqrt(count)).all()
        assert ((z.std(0) / SIGMA - 1).abs() < 4 / math.sqrt(2 * count)).all()
        parts = ((z - ALPHA * f) / SIGMA).flatten(1)
        together = parts.T @ parts / count - torch.eye(C * W)
        assert together.abs().max() < 5 * math.sqrt(2 / count), "no coordinate's noise goes with another's"


def test_each_draw_of_a_judgement_has_a_noise_of_its_own() -> None:
    """The same for all that is asked of one draw, so that the three terms are of one reconstruction."""
    listening = Listening(vectors=torch.ones(100, C, W))
    OBJECTIVE.assess(listening, rows(count=100), generator=noise(), draws=3)
    assert len(listening.given) == 6, "some token of 800 is hidden at every time"
    for first, second in zip(listening.given[::2], listening.given[1::2], strict=True):
        assert torch.equal(first, second)
    kinds = {tuple(z.flatten().tolist()) for z in listening.given}
    assert len(kinds) == 3


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_of_rows_that_go_without_any_concept_is_the_one_that_was_asked_for(share) -> None:
    """Within four standard errors; the other rows keep all their concepts."""
    count, spy = 4000, Spy()
    replace(OBJECTIVE, blind_share=share)(spy, rows(count=count, length=3), generator=noise())
    kept = spy.last["kept"]
    assert set(kept.tolist()) == {0, C}
    found = float((kept == 0).float().mean())
    assert found == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / count))


@each_use
def test_without_a_share_and_where_it_is_judged_every_row_keeps_its_concepts(use) -> None:
    spy = Spy()
    use(spy, rows())
    replace(OBJECTIVE, blind_share=0.9).assess(spy, rows(), generator=noise(), draws=1)
    assert [told["kept"] for told in spy.calls] == [None] * len(spy.calls)


def test_a_row_without_concepts_is_written_the_same_whatever_its_text_was() -> None:
    """Of a row that keeps them that is not so: the texts differ where the decoder sees masks alone."""
    network, batch = reader(latent_width=W, concepts=C), rows(count=24)
    blind = replace(OBJECTIVE, blind_share=0.5)
    spy = Spy()
    blind(spy, batch, generator=noise())
    without = spy.last["kept"] == 0
    assert 0 < int(without.sum()) < 24
    asked = spy.last["positions"]

    def nats(ids):
        logits = network(
            spy.last["z"],
            spy.last["t"],
            segments=batch.segments,
            positions=asked,
            source=ids,
            source_real=batch.segments > 0,
            kept=spy.last["kept"],
        )
        return logits, asked.nonzero(as_tuple=True)[0]

    (first, row), (second, _) = nats(batch.ids), nats(5 - batch.ids)
    torch.testing.assert_close(first[without[row]], second[without[row]])
    assert ((first - second)[~without[row]].abs().amax(-1) > 1e-4).all()


@each_use
def test_the_encoder_of_an_autoencoder_reads_every_token_and_no_padding(use) -> None:
    """Of ragged rows, given tokens among them; nothing of what noise left."""
    batch, spy = rows(count=4, length=8, given=2, lengths=(8, 5, 3, 7)), Spy()
    use(spy, batch)
    for told in spy.calls:
        assert torch.equal(told["real"], batch.segments > 0)
        assert torch.equal(told["source"], batch.ids)


def test_what_padding_holds_changes_no_reconstruction() -> None:
    network, batch = reader(latent_width=W, concepts=C), rows(lengths=(8, 5, 3, 7))
    filled = replace(batch, ids=torch.where(batch.segments > 0, batch.ids, 5 - batch.ids))
    losses = [OBJECTIVE(network, each, generator=noise()).nats for each in (batch, filled)]
    torch.testing.assert_close(*losses)
