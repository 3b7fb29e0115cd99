"""What users of transformers and of other diffusion models write to `generate`, in remask's words."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from transformers import GenerationConfig

from remask.config.schema import Recipe, SamplingSpec
from remask.errors import UserError, did_you_mean
from remask.finished import GREEDY, sampling_with

Words = Mapping[str, Any]
_TOTAL, _NEW, _COPIES, _SEED, _STEPS = "max_length", "new_tokens", "copies", "seed", "steps"
_NOT_SAMPLING = (_TOTAL, _NEW, _COPIES, _SEED)
_REMASKING = {"low_confidence": {"sampler": "confidence"}, "random": {"sampler": "ancestral"}}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A call of `generate`, read.

    Attributes:
        sampling: how to draw; its steps are those of a block where it has blocks.
        total_steps: steps of the whole text, spread over its blocks; None: `sampling` says it.
        new_tokens: tokens to draw after each prompt; None: not said.
        max_length: tokens of prompt and text together; None: not said.
        seed: of all draws.
        copies: texts a prompt.
    """

    sampling: SamplingSpec
    total_steps: int | None
    new_tokens: int | None
    max_length: int | None
    seed: int
    copies: int

    def tokens_after(self, prompt: int, *, longest: int) -> int:
        """Tokens to draw after a prompt of this many tokens; what is not said fills up the longest row.

        Raises:
            UserError: when the two ways to say it disagree, or leave less than nothing.
        """
        total = None if self.max_length is None else self.max_length - prompt
        if None not in (total, self.new_tokens) and total != self.new_tokens:
            raise UserError(
                f"max_length={self.max_length} leaves {total} tokens after a prompt of {prompt}, and "
                f"max_new_tokens={self.new_tokens} asks for another number. Give one of them"
            )
        stated = self.new_tokens if total is None else total
        wanted = longest - prompt if stated is None else stated
        if not 0 <= wanted <= longest - prompt:
            raise UserError(
                f"{wanted} new tokens were asked for after a prompt of {prompt}; the model was trained on rows of "
                f"{longest} tokens, so valid is 0 to {max(longest - prompt, 0)}. Shorten the prompt or ask for fewer"
            )
        return wanted

    def sampling_of(self, prompt: int, *, length: int) -> SamplingSpec:
        """The way to draw a row of `length` tokens that begins with `prompt` fixed ones.

        Steps that were given are those of the whole text, as in LLaDA (arXiv:2502.09992, algorithm 5): every block
        that has something to draw gets an equal share, rounded up.
        """
        block = self.sampling.block_length
        if self.total_steps is None or block is None:
            return self.sampling
        blocks = max(1, -(-length // block) - prompt // block)
        return self.sampling.model_copy(update={_STEPS: -(-self.total_steps // blocks)})


def read_options(recipe: Recipe, config: GenerationConfig | None, options: Words, *, eos_id: int) -> Request:
    """What the recipe says, changed by a generation config, changed by the options of one call.

    Args:
        recipe: the model's.
        config: any generation config; what it leaves at its default says nothing.
        options: the call's; None says nothing.
        eos_id: the model's end of text.

    Raises:
        UserError: for an unknown option, two names of one option with different values, or a value out of range.
    """
    known = _known(eos_id)
    words = {**_translated(_stated(config), known), **_translated(options, known)}
    spec = sampling_with(recipe, {name: value for name, value in words.items() if name not in _NOT_SAMPLING})
    request = Request(
        sampling=spec,
        total_steps=spec.steps if _STEPS in words else None,
        new_tokens=_whole(words, _NEW, least=0),
        max_length=_whole(words, _TOTAL, least=1),
        seed=recipe.seed,
        copies=_whole(words, _COPIES, least=1) or 1,
    )
    seed = _whole(words, _SEED, least=0)
    return request if seed is None else replace(request, seed=seed)


def _stated(config: GenerationConfig | None) -> Words:
    """What a config says: the attributes that differ from transformers' defaults."""
    if config is None:
        return {}
    unsaid = {"transformers_version"}
    return {k: v for k, v in config.to_diff_dict().items() if k not in unsaid and not k.startswith("_")}


def _known(eos_id: int) -> dict[str, Callable[[Any], Words]]:
    """Option → its meaning in remask's words, as a function of its value."""
    same: Iterable[str] = SamplingSpec.model_fields.keys() - {"count", "length", "remasking"}
    aliases = {
        "num_inference_steps": _STEPS,
        "max_denoising_steps": _STEPS,
        "gen_length": _NEW,
        "max_new_tokens": _NEW,
        "max_length": _TOTAL,
        "cfg_scale": "guidance",
        "num_return_sequences": _COPIES,
        "seed": _SEED,
    }
    renamed = {**{name: name for name in same}, **aliases}
    return {
        **{name: _renames(word) for name, word in renamed.items()},
        "temperature": lambda value: {"top_p": GREEDY} if value == 0 else {"temperature": value},
        # in transformers a scale of 1 is no guidance; in remask, as in LLaDA, 0 is
        "guidance_scale": _shifted,
        "do_sample": lambda value: {} if value else {"top_p": GREEDY},
        "remasking": lambda value: _REMASKING.get(value, {"remasking": value}),
        "eos_token_id": lambda value: _own_eos("eos_token_id", value, eos_id),
        "pad_token_id": lambda value: _own_eos("pad_token_id", value, eos_id),
    }


def _renames(word: str) -> Callable[[Any], Words]:
    return lambda value: {word: value}


def _shifted(value: Any) -> Words:
    """The guidance of a scale at which 1, not 0, leaves the model as it is."""
    if not isinstance(value, int | float):
        raise UserError(f"guidance_scale={value} was given; valid is a number from 1 (no guidance) on")
    return {"guidance": value - 1.0}


def _own_eos(name: str, value: Any, eos_id: int) -> Words:
    """Says nothing, when it is the model's own."""
    if value not in (eos_id, [eos_id]):
        raise UserError(f"{name}={value} was given; this model ends a text with {eos_id}. Leave {name} out")
    return {}


def _translated(options: Words, known: Mapping[str, Callable[[Any], Words]]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in options.items():
        if name not in known:
            raise UserError(f"generate has no option {name}; {did_you_mean(name, known)}")
        if value is None:
            continue
        for word, meaning in known[name](value).items():
            if word in words and words[word] != meaning:
                raise UserError(
                    f"{name}={value} and {origin[word]}={options[origin[word]]} say different things about one "
                    "option. Give one of them"
                )
            words[word], origin[word] = meaning, name
    return words


def _whole(words: Words, name: str, *, least: int) -> int | None:
    value = words.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name}={value} was given; valid is a whole number from {least} on")
    return value
