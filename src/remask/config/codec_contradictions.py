"""Keys of a recipe of an autoencoder of responses that do not go together."""

from collections.abc import Callable, Iterator

from remask.config.clash import Contradiction, clash
from remask.config.schema import Recipe, TextAutoencoderNetworkSpec, TextAutoencoderSpec


def _pair(recipe: Recipe) -> Iterator[Contradiction]:
    """One objective and one network."""
    objective, network = recipe.objective, recipe.network
    ours, theirs = isinstance(objective, TextAutoencoderSpec), isinstance(network, TextAutoencoderNetworkSpec)
    if ours and not theirs:
        but, give = "objective text_autoencoder writes a text again from vectors", "network.kind=text_autoencoder"
        yield clash("objective.kind", "network.kind", given=network.kind, but=but, give=give)
    if theirs and not ours:
        but, give = "a text_autoencoder network writes a text again from vectors", "objective.kind=text_autoencoder"
        yield clash("network.kind", "objective.kind", given=objective.kind, but=but, give=give)


def _sizes(recipe: Recipe) -> Iterator[Contradiction]:
    """What each encoder needs, and how tokens share vectors."""
    network = recipe.network
    if not isinstance(network, TextAutoencoderNetworkSpec):
        return
    length = network.length or recipe.data.length
    if length % network.stride:
        but = f"network.length={length} is no multiple of it"
        give = f"network.length={length - length % network.stride + network.stride}, or another network.stride"
        yield clash("network.length", "network.stride", given=network.stride, but=but, give=give)
    if network.encoder == "frozen" and network.name is None:
        but, give = "network.encoder=frozen reads by a language model", "network.name=FOLDER, or network.encoder=own"
        yield clash("network.encoder", "network.name", given=None, but=but, give=give)
    elif network.encoder == "frozen" and recipe.tokenizer.kind != "huggingface":
        but = "a frozen reader reads the ids of its own tokenizer"
        give = f"tokenizer.kind=huggingface and tokenizer.name={network.name}"
        yield clash("network.encoder", "tokenizer.kind", given=recipe.tokenizer.kind, but=but, give=give)
    if network.encoder == "own" and network.name is not None:
        but, give = "network.encoder=own reads by no other model", "network.encoder=frozen, or network.name=null"
        yield clash("network.encoder", "network.name", given=network.name, but=but, give=give)
    if recipe.training.parallel == "fsdp":
        but, give = "an autoencoder of responses is whole on every process", "training.parallel=ddp"
        yield clash("network.kind", "training.parallel", given="fsdp", but=but, give=give)


def _unread(recipe: Recipe) -> Iterator[Contradiction]:
    """A response is written from vectors that never saw its question."""
    if isinstance(recipe.objective, TextAutoencoderSpec) and (given := recipe.training.prompt_dropout):
        but, give = "objective text_autoencoder reads no prompts", "training.prompt_dropout=0"
        yield clash("objective.kind", "training.prompt_dropout", given=given, but=but, give=give)


CODEC_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (_pair, _sizes, _unread)
