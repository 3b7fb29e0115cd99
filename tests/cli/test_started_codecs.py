"""What a training takes of other runs, and what stays its own: a codec, measured vectors, counts of its text."""

import pytest
import torch
from command import BYTES, QUESTIONS, newest, refused, succeeds, write_text

from remask.finished import open_model

SMALL = [*QUESTIONS, "data.length=36"]
OWN = ["network.length=28", "network.latent_width=4"]


def network_of(run: str):
    return open_model(run, device=torch.device("cpu"))[0].network


@pytest.fixture
def codecs(home):
    """Two codecs of equal shapes and unequal weights, and one that holds few tokens."""
    found = []
    for changes in (["seed=1"], ["seed=2"], ["network.length=10"]):
        succeeds("train", "thought-codec", *SMALL, *OWN, *changes)
        found.append(newest(home)[0].id)
    return found


def test_a_thought_that_starts_from_one_around_another_codec_keeps_its_own(codecs, home):
    first, second, _ = codecs
    succeeds("train", "thought-vae", *SMALL, f"network.codec={first}")
    other = newest(home)[0].id
    succeeds("train", "thought-vae", *SMALL, f"network.codec={second}")
    fresh = newest(home)[0].id
    started = [f"network.codec={second}", f"training.start_from={other}"]
    succeeds("train", "thought-vae", *SMALL, *started)
    record = newest(home)[0]
    assert [each["how"] for each in record.lineage] == ["enclosed", "initialised"]
    of, same, before = (network_of(run).codec for run in (record.id, fresh, other))
    codec = dict(network_of(second).named_parameters())
    for name, weight in of.filled.named_parameters():
        assert torch.equal(weight, codec[name]), name
    assert torch.equal(of.shift, same.shift)
    assert torch.equal(of.scale, same.scale)
    assert not torch.equal(of.shift, before.shift)


def test_a_codec_that_would_lose_the_end_of_responses_or_does_not_know_it_is_refused(codecs):
    first, _, short = codecs
    said = refused("train", "thought-vae", *SMALL, f"network.codec={short}")
    assert "holds 10 tokens of a response, and 40 of 40 training responses have more, up to 25: train it with" in said
    assert "network.length=26 or more" in said
    said = refused("train", "thought-vae", *SMALL, f"network.codec={first}", "data.pad=none")
    assert "was trained with data.pad=end, and this recipe has none: set it so" in said


def test_longer_rows_alone_are_no_longer_responses(codecs, home):
    succeeds("train", "thought-vae", *SMALL, f"network.codec={codecs[0]}", "data.length=64")


def test_a_run_that_starts_from_one_of_another_text_counts_tokens_of_its_own(home, text, tmp_path):
    other = write_text(tmp_path / "other.txt", seed=5)
    other.write_text(other.read_text().replace("e", "zz"))
    small = [part for part in BYTES if not part.startswith(("data.length", "network.layers"))]
    small += ["data.length=16", "data.prefix=8", "data.stride=8", "network.layers=2", "network.rarity=1e-3"]
    shares, runs = [], []
    for source in (text, other, other):
        start = [f"training.start_from={runs[0]}"] if len(runs) == 2 else []
        succeeds("train", "concept-diffusion", *small, f"data.source={source}", *start)
        runs.append(newest(home)[0].id)
        shares.append(network_of(runs[-1]).rarity.shares)
    assert torch.equal(shares[2], shares[1])
    assert not torch.equal(shares[2], shares[0])
