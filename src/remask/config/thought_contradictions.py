"""Keys of a recipe of a thought that do not go together."""

from collections.abc import Callable, Iterator

from remask.config.clash import Contradiction, clash
from remask.config.schema import AdaptedSpec, LatentTableSpec, Recipe, ThoughtObjectiveSpec

LATENT_SAMPLERS = ("ddim", "ddpm", "heun")
"""Samplers of vectors."""


def _pair(recipe: Recipe) -> Iterator[Contradiction]:
    """Gaussian noise, the objective and the network of a thought are one thing."""
    thought, network = isinstance(recipe.objective, ThoughtObjectiveSpec), isinstance(recipe.network, LatentTableSpec)
    gaussian = recipe.process is not None and recipe.process.kind == "gaussian"
    if thought and not network:
        but = "objective thought denoises vectors"
        give = "network.kind=thought (or thought_pretrained)"
        yield clash("objective.kind", "network.kind", given=recipe.network.kind, but=but, give=give)
    if network and not thought:
        but = f"a {recipe.network.kind} network denoises vectors, not tokens"
        yield clash(
            "network.kind", "objective.kind", given=recipe.objective.kind, but=but, give="objective.kind=thought"
        )
    if gaussian and not thought:
        but = f"objective {recipe.objective.kind} is of tokens, and Gaussian noise lies on vectors"
        give = "process.kind=masking, or objective.kind=thought"
        yield clash("objective.kind", "process.kind", given="gaussian", but=but, give=give)


def _sampler(recipe: Recipe) -> Iterator[Contradiction]:
    """Vectors are drawn by samplers of vectors, tokens by those of tokens."""
    thought, drawn = isinstance(recipe.objective, ThoughtObjectiveSpec), recipe.sampling.sampler
    if thought and drawn not in LATENT_SAMPLERS:
        but = "a thought is drawn as vectors"
        give = f"sampling.sampler=ddim (or {' or '.join(LATENT_SAMPLERS[1:])})"
        yield clash("objective.kind", "sampling.sampler", given=drawn, but=but, give=give)
    if not thought and drawn in LATENT_SAMPLERS:
        but = f"it draws vectors, and objective {recipe.objective.kind} is of tokens"
        fitting = "left_to_right" if recipe.objective.kind == "next_token" else "ancestral"
        give = f"another sampler, e.g. sampling.sampler={fitting}"
        yield clash("objective.kind", "sampling.sampler", given=drawn, but=but, give=give)


def _question(recipe: Recipe) -> Iterator[Contradiction]:
    """A thought stands behind a question, which is given."""
    data = recipe.data
    if not isinstance(recipe.objective, ThoughtObjectiveSpec):
        return
    if not data.paired and not data.prefix:
        but = "a thought stands behind a question"
        give = "a source of pairs (data.prompt_key and data.response_key), a task such as arithmetic, or data.prefix"
        yield clash("objective.kind", "data.source", given=data.source, but=but, give=give)
    if recipe.training.parallel == "fsdp":
        but = "the table of token vectors is read outside of the network, whole"
        yield clash("network.kind", "training.parallel", given="fsdp", but=but, give="training.parallel=ddp")


def _ends(recipe: Recipe) -> Iterator[Contradiction]:
    """Padding would show in training where a response ends, and a draw fills its whole row."""
    data, network = recipe.data, recipe.network
    if not isinstance(recipe.objective, ThoughtObjectiveSpec) or not isinstance(network, LatentTableSpec):
        return
    if data.paired and data.pad != "end" and network.latent != "codec":
        but = "a thought fills its row, and padding would tell it in training alone where the response ends"
        yield clash("objective.kind", "data.pad", given=data.pad, but=but, give="data.pad=end")


def _loss(recipe: Recipe) -> Iterator[Contradiction]:
    """What each loss is of."""
    spec, network = recipe.objective, recipe.network
    if not isinstance(spec, ThoughtObjectiveSpec) or not isinstance(network, LatentTableSpec):
        return
    if spec.loss != "cross_entropy" and network.latent == "learned":
        but = f"a squared error (objective.loss={spec.loss}) is least where all tokens have one vector"
        yield clash("objective.loss", "network.latent", given="learned", but=but, give="network.latent=random (or own)")
    if spec.loss == "cross_entropy" and network.readout != "tokens":
        but = "objective.loss=cross_entropy is of tokens"
        give = "network.readout=tokens, or objective.loss=clean (or velocity, noise)"
        yield clash("objective.loss", "network.readout", given=network.readout, but=but, give=give)
    if spec.loss == "cross_entropy" and spec.weighting != "own":
        but = "only squared errors are weighted by time"
        yield clash(
            "objective.loss", "objective.weighting", given=spec.weighting, but=but, give="objective.weighting=own"
        )
    if spec.time_warping == "learned" and spec.time_exponent != 1.0:
        but = "learned times are not bent as well"
        given, give = f"{spec.time_exponent:g}", "objective.time_exponent=1, or objective.time_warping=none"
        yield clash("objective.time_warping", "objective.time_exponent", given=given, but=but, give=give)
    if spec.time_warping == "learned" and spec.loss != "cross_entropy":
        but = "times are learned from nats of tokens, and a weighted squared error need not rise with noise"
        give = "objective.loss=cross_entropy, or objective.time_warping=none"
        yield clash("objective.time_warping", "objective.loss", given=spec.loss, but=but, give=give)
    yield from _answers(spec)
    if network.readout != "tokens":
        for key in ("temperature", "top_p"):
            if (given := getattr(recipe.sampling, key)) != 1.0:
                but = f"network.readout={network.readout} has no probabilities to reshape"
                yield clash("network.readout", f"sampling.{key}", given=f"{given:g}", but=but, give=f"sampling.{key}=1")


def _answers(spec: ThoughtObjectiveSpec) -> Iterator[Contradiction]:
    """The noise that answers are written behind; keys of answers are read only where some are written."""
    if spec.answer_weight and spec.answer_noise <= spec.t_min:
        but = f"it must lie above objective.t_min={spec.t_min:g}"
        keys = ("objective.t_min", "objective.answer_noise")
        yield clash(*keys, given=f"{spec.answer_noise:g}", but=but, give="objective.answer_noise=0.3")


def _table(recipe: Recipe) -> Iterator[Contradiction]:
    """What is asked of the table of vectors where it is the network's own embedding."""
    network = recipe.network
    if not isinstance(network, LatentTableSpec) or network.latent != "own":
        return
    if network.latent_width is not None:
        but = "network.latent=own has the width of the embedding"
        give = "network.latent_width=null"
        yield clash("network.latent", "network.latent_width", given=network.latent_width, but=but, give=give)
    if isinstance(network, AdaptedSpec) and network.embeddings == "cpu":
        but = "network.latent=own reads the whole table on the device at every step"
        give = "network.embeddings=device, or network.latent=learned"
        yield clash("network.latent", "network.embeddings", given="cpu", but=but, give=give)


def _codec(recipe: Recipe) -> Iterator[Contradiction]:
    """What a codec of responses brings with it."""
    network, spec = recipe.network, recipe.objective
    if not isinstance(network, LatentTableSpec) or not isinstance(spec, ThoughtObjectiveSpec):
        return
    if network.latent != "codec":
        if network.codec is not None:
            but = f"network.latent={network.latent} has a vector for each token"
            give = "network.codec=null, or network.latent=codec"
            yield clash("network.latent", "network.codec", given=network.codec, but=but, give=give)
        return
    if network.codec is None:
        but = "network.latent=codec is a finished run's"
        give = "network.codec=RUN, of recipe thought-codec or concept-autoencoder"
        yield clash("network.latent", "network.codec", given=None, but=but, give=give)
    if network.latent_width is not None:
        but = "network.latent=codec has the width of the codec's vectors"
        give = "network.latent_width=null"
        yield clash("network.latent", "network.latent_width", given=network.latent_width, but=but, give=give)
    if network.readout != "vectors":
        but = "network.latent=codec has no vector for a token"
        give = "network.readout=vectors"
        yield clash("network.latent", "network.readout", given=network.readout, but=but, give=give)


def _hidden(recipe: Recipe) -> Iterator[Contradiction]:
    """What a network that reads no question cannot be asked."""
    network = recipe.network
    if not isinstance(network, LatentTableSpec) or network.question == "shown":
        return
    values = {
        "training.prompt_dropout": recipe.training.prompt_dropout,
        "sampling.guidance": recipe.sampling.guidance,
    }
    for key, given in values.items():
        if given:
            but = "network.question=hidden has no question to read"
            give = f"{key}=0, or network.question=shown"
            yield clash("network.question", key, given=f"{given:g}", but=but, give=give)


THOUGHT_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (
    _pair,
    _sampler,
    _question,
    _ends,
    _loss,
    _table,
    _codec,
    _hidden,
)
