"""Keys of a codec of responses, and of a thought in its vectors, that do not go together get one line each."""

import pytest

from remask.config.load import load_recipe
from remask.errors import UserError

CLASHES = [
    (
        ["thought-codec", "network.stride=3"],
        "network.stride: 3 given, but network.length=28 is no multiple of it; give network.length=30, or another "
        "network.stride",
    ),
    (
        ["thought-codec", "network.encoder=frozen"],
        "network.name: null given, but network.encoder=frozen reads by a language model; give network.name=FOLDER, or "
        "network.encoder=own",
    ),
    (
        ["thought-codec", "network.name=somewhere"],
        "network.name: somewhere given, but network.encoder=own reads by no other model; give network.encoder=frozen, "
        "or network.name=null",
    ),
    (
        ["thought-codec", "objective.kind=likelihood_bound"],
        "objective.kind: likelihood_bound given, but a text_autoencoder network writes a text again from vectors; give "
        "objective.kind=text_autoencoder",
    ),
    (
        ["thought-codec", "training.parallel=fsdp"],
        "training.parallel: fsdp given, but an autoencoder of responses is whole on every process; give "
        "training.parallel=ddp",
    ),
    (
        ["thought-vae", "network.codec=null"],
        "network.codec: null given, but network.latent=codec is a finished run's; give network.codec=RUN, of recipe "
        "thought-codec or concept-autoencoder",
    ),
    (
        ["thought-vae", "network.readout=tokens", "network.codec=r"],
        "network.readout: tokens given, but network.latent=codec has no vector for a token; give "
        "network.readout=vectors",
    ),
    (
        ["thought-vae", "network.latent_width=8", "network.codec=r"],
        "network.latent_width: 8 given, but network.latent=codec has the width of the codec's vectors; give "
        "network.latent_width=null",
    ),
    (
        ["thought-vae", "network.latent=random", "network.codec=r"],
        "network.codec: r given, but network.latent=random has a vector for each token; give network.codec=null, or "
        "network.latent=codec",
    ),
]


@pytest.mark.parametrize(("given", "line"), CLASHES, ids=[given[1] for given, _ in CLASHES])
def test_a_contradiction_is_one_line(given, line):
    with pytest.raises(UserError) as caught:
        load_recipe(given[0], given[1:])
    assert str(caught.value).splitlines() == [line]
