"""Keys of a recipe of the concept family that are each valid but do not go together."""

from collections.abc import Callable, Iterator

from remask.config.clash import Contradiction, clash
from remask.config.diversity_contradictions import (
    enough_concepts,
    fitting_views,
    wanted_decoder,
    whole_batches,
    whole_texts,
)
from remask.config.schema import STRETCHED, ConceptBoundSpec, ConceptMaskedSpec, ConceptSpec, Recipe


def _given(recipe: Recipe) -> Iterator[Contradiction]:
    """A bound on what follows needs something that it follows."""
    objective, data = recipe.objective, recipe.data
    if not isinstance(objective, ConceptBoundSpec):
        return
    if not data.prefix and not data.paired:
        but = "the text has nothing that is given, for concepts to be read from"
        give = "data.prefix (tokens given at the start of each row), or data.prompt_key and data.response_key"
        yield clash("objective.kind", "data.prefix", given=data.prefix, but=but, give=give)


def _reader(recipe: Recipe) -> Iterator[Contradiction]:
    """An objective that tells a network a source needs one that reads it, and such a network is told one."""
    kind, network = recipe.objective.kind, recipe.network.kind
    if kind.startswith("concept_") == (network in SOURCE_NETWORKS):
        return
    if network in SOURCE_NETWORKS:
        but = f"a {network} network reads a source, and objective {kind} has none for it"
        give = "objective.kind=concept_bound, or network.kind=transformer"
        yield clash("network.kind", "objective.kind", given=kind, but=but, give=give)
    else:
        but = f"objective {kind} is of networks that read a source"
        give = f"network.kind={SOURCE_NETWORKS[0]}, or objective.kind=likelihood_bound"
        yield clash("objective.kind", "network.kind", given=network, but=but, give=give)


SOURCE_NETWORKS = ("concept", "concept_prior")
"""Kinds of networks that read a source beside the tokens they denoise."""


def _concept_network(recipe: Recipe) -> Iterator[Contradiction]:
    """What the network itself says."""
    network = recipe.network
    if not isinstance(network, ConceptSpec):
        return
    if recipe.process is not None and recipe.process.kind != "masking":
        but = "a decoder that sees its own noisy token knows nothing of it under masking noise alone"
        yield clash("network.kind", "process.kind", given=recipe.process.kind, but=but, give="process.kind=masking")
    for key in ("local_width", "decoder_local_width"):
        span = getattr(network, key)
        if span % 2 == 0:
            but = "a token stands in the middle of its neighbours"
            yield clash("network.kind", f"network.{key}", given=span, but=but, give=f"network.{key}={span + 1}")
    yield from _encoder(network)
    yield from _band_width(network)
    yield from _source_tokens(network)
    yield from _own_stretch(recipe, network)


def _encoder(network: ConceptSpec) -> Iterator[Contradiction]:
    encoder, fewest = network.encoder, network.min_depth
    if fewest is not None and encoder != "recursive":
        but = f"an encoder of kind {encoder} has no depth to draw"
        give = "network.min_depth=null, or network.encoder=recursive"
        yield clash("network.encoder", "network.min_depth", given=fewest, but=but, give=give)
    elif fewest is not None and fewest > network.layers:
        but = f"it is more than network.layers={network.layers}"
        yield clash("network.layers", "network.min_depth", given=fewest, but=but, give="that many or fewer")
    if encoder == "two_way" and network.layers == 1:
        but = "its last layer writes nothing to the tokens, and there is no other"
        yield clash("network.encoder", "network.layers", given=1, but=but, give="network.layers=2 or more")
    if encoder in ("tokens", *STRETCHED, "mean", "none"):
        if encoder == "none" and network.latent_width is not None:
            but = "there is no concept that could have a width"
            give = "network.latent_width=null, or network.encoder=perceiver"
            yield clash("network.encoder", "network.latent_width", given=network.latent_width, but=but, give=give)
        if encoder not in ("tokens", "stretch_states") and network.freeze_encoder:
            but = f"an encoder of kind {encoder} has no weights"
            give = "network.freeze_encoder=false, or network.encoder=perceiver"
            yield clash("network.encoder", "network.freeze_encoder", given="true", but=but, give=give)
        if network.slots != "reading":
            but = f"an encoder of kind {encoder} has no slots"
            give = "network.slots=reading, or network.encoder=perceiver"
            yield clash("network.encoder", "network.slots", given=network.slots, but=but, give=give)
        if network.decoder == "weighted" and encoder != "mean":
            but = "its table has a column for each of a fixed number of concepts"
            give = "network.decoder=denoising, or network.encoder=perceiver"
            yield clash("network.encoder", "network.decoder", given=network.decoder, but=but, give=give)


def _band_width(network: ConceptSpec) -> Iterator[Contradiction]:
    """The states of `stretch_states` are a half or a third of its concepts, and its heads turn pairs of features."""
    part = 2 * network.bands * network.heads
    if network.width % (2 * network.heads):
        return  # said of every network
    if network.encoder == "stretch_states" and network.width % part:
        share = {2: "half", 3: "a third"}[network.bands]
        but = f"{share} of it is no even number of features for each of network.heads={network.heads} heads"
        give = f"network.width={-(-network.width // part) * part}, or another network.heads"
        yield clash("network.encoder", "network.width", given=network.width, but=but, give=give)


def _own_stretch(recipe: Recipe, network: ConceptSpec) -> Iterator[Contradiction]:
    """Places find the concept of their stretch where the encoder met all tokens of the row that is decoded."""
    objective = recipe.objective
    if network.decoder != "stretch":
        return
    if network.encoder not in STRETCHED:
        but, give = "its concepts are no stretches of a text", "network.encoder=stretch_states"
        yield clash("network.decoder", "network.encoder", given=network.encoder, but=but, give=give)
    if not isinstance(objective, ConceptMaskedSpec):
        but = "a place has a stretch of its own in the row that was encoded alone"
        give = "objective.kind=concept_masked with objective.hidden=masked, or network.decoder=position_only"
        yield clash("network.decoder", "objective.kind", given=objective.kind, but=but, give=give)
    elif objective.hidden == "absent":
        but = "a hidden place has no stretch that reads it"
        give = "objective.hidden=masked, or network.decoder=position_only"
        yield clash("network.decoder", "objective.hidden", given=objective.hidden, but=but, give=give)
    elif network.encoder == "stretches" and network.concepts >= recipe.data.length:
        but = f"a mask then is a concept by itself (data.length={recipe.data.length}), which knows nothing of its place"
        give = "network.encoder=stretch_states, or fewer"
        yield clash("network.decoder", "network.concepts", given=network.concepts, but=but, give=give)


def _source_tokens(network: ConceptSpec) -> Iterator[Contradiction]:
    """What is said of the tokens that an encoder reads."""
    encoder, letters = network.encoder, network.letters
    if letters is not None and letters.least > letters.most:
        but = f"it is more than network.letters.most={letters.most}"
        give = f"network.letters.least={letters.most} or fewer"
        yield clash("network.letters.most", "network.letters.least", given=letters.least, but=but, give=give)
    if letters is not None and encoder == "none":
        but, give = "an encoder of kind none reads no token", "network.letters=null, or network.encoder=perceiver"
        yield clash("network.encoder", "network.letters", given="letters", but=but, give=give)
    if network.rarity is not None and encoder not in WEIGHING:
        but = f"an encoder of kind {encoder} reads all tokens as equally large ones, or none"
        give = f"network.rarity=null, or network.encoder={' or '.join(WEIGHING)}"
        yield clash("network.encoder", "network.rarity", given=network.rarity, but=but, give=give)
    if network.co_occurrence is not None and encoder != "stretch_states":
        but = f"an encoder of kind {encoder} keeps no part of its concepts for it"
        give = "network.co_occurrence=null, or network.encoder=stretch_states"
        yield clash("network.encoder", "network.co_occurrence", given="co_occurrence", but=but, give=give)


WEIGHING = ("perceiver", "recursive", *STRETCHED, "mean")
"""Encoders to which the size of a token's vector says how much it counts."""


CONCEPT_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (
    _concept_network,
    _reader,
    _given,
    whole_texts,
    fitting_views,
    wanted_decoder,
    enough_concepts,
    whole_batches,
)
