"""Keys of a recipe that are each valid but do not go together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from remask.config.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Two keys that disagree.

    Attributes:
        keys: the dotted keys (or sections) that disagree; the message is about the last one.
        message: one line: what was given, why it does not fit, what to do.
    """

    keys: tuple[str, ...]
    message: str


def contradictions(recipe: Recipe) -> Iterator[Contradiction]:
    """Every pair of keys in the recipe that do not go together, in a fixed order."""
    for check in _CHECKS:
        yield from check(recipe)


def _clash(*keys: str, given: object, but: str, give: str) -> Contradiction:
    value = "null" if given is None else given
    return Contradiction(keys=keys, message=f"{keys[-1]}: {value} given, but {but}; give {give}")


def _source(recipe: Recipe) -> Iterator[Contradiction]:
    if recipe.data.source.startswith("hf:"):
        return
    but = f"data.source={recipe.data.source} is no Hugging Face dataset"
    if recipe.data.streaming:
        give = "data.streaming=false, or data.source=hf:NAME"
        yield _clash("data.source", "data.streaming", given="true", but=but, give=give)
    if recipe.data.config is not None:
        give = "data.config=null, or data.source=hf:NAME"
        yield _clash("data.source", "data.config", given=recipe.data.config, but=but, give=give)


def _next_token(recipe: Recipe) -> Iterator[Contradiction]:
    if recipe.objective.kind != "next_token":
        return
    process, network, sampler = recipe.process, recipe.network, recipe.sampling.sampler
    if process is not None:
        but = "objective next_token uses no noise"
        give = "process=null, or objective.kind=likelihood_bound"
        yield _clash("objective.kind", "process.kind", "process", given=process.kind, but=but, give=give)
    if network.attention != "causal":
        but = "objective next_token must not see the token it predicts"
        give = "network.attention=causal"
        yield _clash("objective.kind", "network.attention", given=network.attention, but=but, give=give)
    if network.time_conditioning != "none":
        but = "objective next_token has no time"
        give, given = "network.time_conditioning=none", network.time_conditioning
        yield _clash("objective.kind", "network.time_conditioning", given=given, but=but, give=give)
    if sampler != "left_to_right":
        but = "objective next_token can only be sampled from the left"
        give = "sampling.sampler=left_to_right"
        yield _clash("objective.kind", "sampling.sampler", given=sampler, but=but, give=give)


def _likelihood_bound(recipe: Recipe) -> Iterator[Contradiction]:
    if recipe.objective.kind != "likelihood_bound":
        return
    attention, sampler = recipe.network.attention, recipe.sampling.sampler
    if recipe.process is None:
        but = "objective likelihood_bound needs noise"
        give = "process.kind=masking (or uniform, hybrid), or objective.kind=next_token"
        yield _clash("objective.kind", "process", given=None, but=but, give=give)
    if attention != "bidirectional":
        but = "objective likelihood_bound predicts from both sides"
        give = "network.attention=bidirectional"
        yield _clash("objective.kind", "network.attention", given=attention, but=but, give=give)
    if sampler == "left_to_right":
        but = "only objective next_token is sampled so"
        give = "sampling.sampler=ancestral (or confidence)"
        yield _clash("objective.kind", "sampling.sampler", given=sampler, but=but, give=give)


def _curriculum(recipe: Recipe) -> Iterator[Contradiction]:
    objective = recipe.objective
    if objective.kind != "likelihood_bound" or not objective.curriculum_ratio:
        return
    if objective.curriculum_start <= objective.t_min:
        but = f"a curriculum starts above objective.t_min={objective.t_min}"
        give = "a larger objective.curriculum_start, or objective.curriculum_ratio=0"
        keys = ("objective.t_min", "objective.curriculum_start")
        yield _clash(*keys, given=objective.curriculum_start, but=but, give=give)


def _confidence(recipe: Recipe) -> Iterator[Contradiction]:
    process = recipe.process
    if recipe.sampling.sampler == "confidence" and process is not None and process.kind != "masking":
        but = f"it needs masked tokens and process.kind is {process.kind}"
        give = "sampling.sampler=ancestral, or process.kind=masking"
        yield _clash("process.kind", "sampling.sampler", given="confidence", but=but, give=give)


def _heads(recipe: Recipe) -> Iterator[Contradiction]:
    width, heads = recipe.network.width, recipe.network.heads
    if width % heads:
        but = f"it is no multiple of network.heads={heads}"
    elif width // heads % 2:
        but = f"each of network.heads={heads} heads gets an odd {width // heads} (rotary positions need pairs)"
    else:
        return
    fitting = max(1, width // (2 * heads)) * 2 * heads
    give = f"network.width={fitting}, or another network.heads"
    yield _clash("network.heads", "network.width", given=width, but=but, give=give)


def _micro_batch(recipe: Recipe) -> Iterator[Contradiction]:
    micro, whole = recipe.training.micro_batch_size, recipe.training.batch_size
    if micro is None or whole % micro == 0:
        return
    # A bounded search, so that an absurd batch size is answered at once.
    divisors = (d for n in range(1, min(micro, 1000) + 1) if whole % n == 0 for d in (n, whole // n))
    fitting = max(d for d in divisors if d <= micro)
    but = f"it does not divide training.batch_size={whole}"
    give = f"training.micro_batch_size={fitting}"
    yield _clash("training.batch_size", "training.micro_batch_size", given=micro, but=but, give=give)


_CHECKS: tuple[Callable[[Recipe], Iterator[Contradiction]], ...] = (
    _source,
    _next_token,
    _likelihood_bound,
    _curriculum,
    _confidence,
    _heads,
    _micro_batch,
)
