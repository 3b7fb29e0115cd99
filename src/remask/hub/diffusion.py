"""A remask model as a model of transformers: load, save, push, call, generate.

The folder that `save_pretrained` writes is a model folder of remask with the files of transformers beside its own, so
`remask.config.saved.load_model` reads it too.

Shape letters: B prompts, P tokens of the longest prompt, N tokens drawn after it, L = P + N, V vocabulary.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers import __version__ as transformers_version
from transformers.modeling_outputs import MaskedLMOutput

from remask.config.build import build_sampler, resolve_device
from remask.config.saved import load_model, save_model
from remask.config.schema import Recipe
from remask.errors import UserError, did_you_mean
from remask.finished import model_folder
from remask.generation import generate
from remask.hub.configuration import RemaskConfig
from remask.hub.options import Request, read_options
from remask.hub.prompts import by_length, check_ids, prompt_rows, until_end
from remask.hub.tokenizer import transformers_tokenizer
from remask.model import Model
from remask.objectives.base import SourceNetwork
from remask.randomness import derive_seed
from remask.samplers.base import Frame, Prompt, silent

_FILES = ["*.json", "*.safetensors", "*.txt"]
"""What is fetched from the Hub: nothing that could hold code."""


@runtime_checkable
class Streamer(Protocol):
    """What `generate` tells of its progress; one that has `put_draft` too sees every step."""

    def put(self, value: Int[Tensor, "..."]) -> None:
        """Tokens that are final."""
        ...

    def end(self) -> None:
        """There are no more."""
        ...


class RemaskForDiffusion(PreTrainedModel):
    """A whole model: network, process, tokenizer and the recipe that says how to draw from it.

    Made by `from_pretrained`, or from a `remask.model.Model` and its recipe.

    Args:
        config: what `config.json` says of it.
        model: the parts.
        recipe: where the parts came from.
    """

    config_class = RemaskConfig
    base_model_prefix = "network"

    def __init__(self, config: RemaskConfig, *, model: Model[Any], recipe: Recipe) -> None:
        super().__init__(config)
        self.network = model.network
        self.recipe = recipe
        self.generation_config = GenerationConfig()
        self._parts = model
        self.eval()

    @property
    def parts(self) -> Model[Any]:
        """The model as the rest of remask uses it."""
        return replace(self._parts, network=self.network)

    @classmethod
    def can_generate(cls) -> bool:
        """It can."""
        return True

    @classmethod
    def _from_config(cls, config: RemaskConfig, **others: Any) -> "RemaskForDiffusion":
        raise UserError("a model without weights is made by `remask train`; give from_pretrained a folder or a name")

    # ── loading and saving ──────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: RemaskConfig | None = None,
        device_map: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> "RemaskForDiffusion":
        """The model in a folder that `save_pretrained` wrote, in a run's model folder, or on the Hub.

        Args:
            pretrained_model_name_or_path: a folder, or a name on the Hub.
            config: its config, where the caller has read it already.
            device_map: one device, or `auto` for the best one; None: the CPU.
            dtype: of the weights, e.g. torch.bfloat16; None or `auto`: float32, as they were trained.
            options: revision, cache_dir, token, force_download and local_files_only, for the Hub.

        Raises:
            UserError: when there is no such model, it is damaged, or an option is unknown.
        """
        dtype = options.pop("torch_dtype", dtype)
        for name in ("trust_remote_code", "adapter_kwargs", "_from_auto"):  # the auto classes add them; no code is run
            options.pop(name, None)
        folder = _fetched(pretrained_model_name_or_path, options)
        device = torch.device("cpu") if device_map is None else resolve_device(str(device_map))
        parts, recipe = load_model(folder, device=device)
        built = cls(config or RemaskConfig.from_pretrained(folder), model=parts, recipe=recipe)
        if (folder / "generation_config.json").is_file():
            built.generation_config = GenerationConfig.from_pretrained(folder)
        if dtype not in (None, "auto"):
            built.network.to(dtype=_dtype(dtype))
        return built

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride] one file, one format: fewer options
        self, save_directory: str | os.PathLike[str], *, push_to_hub: bool = False, **options: Any
    ) -> None:
        """Writes the whole model into a folder; other files there stay.

        Args:
            save_directory: the folder, made where it is missing.
            push_to_hub: also uploads it.
            options: of `push_to_hub`: repo_id (default: the folder's name), token, private, commit_message.

        Raises:
            UserError: when the place is a file.
            RunError: when the disk refuses.
        """
        options.pop("max_shard_size", None)  # the library's own push hands it over; the weights are one file
        options.pop("safe_serialization", None)  # there is no other serialization
        target = Path(save_directory)
        if target.is_file():
            raise UserError(f"{target} is a file; give a folder to save the model in")
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".partial-") as temporary:
            whole = Path(temporary) / "model"
            save_model(self.parts, self.recipe, whole)
            _add_transformers_files(self.parts, self.generation_config, whole, name=type(self).__name__)
            for file in [path for path in whole.rglob("*") if path.is_file()]:
                place = target / file.relative_to(whole)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
        if push_to_hub:
            self.push_to_hub(options.pop("repo_id", target.name), **options)

    # ── use ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def forward(
        self,
        input_ids: Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "B L"] | None = None,
        t: Float[Tensor, "B"] | None = None,
    ) -> MaskedLMOutput:
        """Leave-one-out logits of every position [B L V].

        Args:
            input_ids: noisy tokens.
            attention_mask: 1 for text, 0 for padding, which no text sees; None: all is text.
            t: the time of each row, in [0, 1], for networks that are told it; None: the time at which the model's
                noise hides the share of the row that is masked.

        Raises:
            UserError: when the model reads what is given apart from what it denoises, as those of concepts do.
        """
        if isinstance(self.network, SourceNetwork):
            raise UserError(
                "this model reads given tokens apart from those it denoises, and one row of ids does not say which are "
                "which. Call generate with a prompt, or network.encode and network.decode"
            )
        seen = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
        if t is None:
            masks = ((input_ids == self._parts.mask_id) & seen.bool()).sum(-1)
            share = masks / seen.sum(-1).clamp_min(1)
            t = share if self._parts.process is None else self._parts.process.schedule.time(1.0 - share)
        everywhere = torch.ones_like(input_ids, dtype=torch.bool)
        logits = self.network(input_ids, t, segments=seen, positions=everywhere)
        return MaskedLMOutput(logits=logits.reshape(*input_ids.shape, -1))

    @torch.no_grad()
    def generate(
        self,
        inputs: Int[Tensor, "B P"] | None = None,
        generation_config: GenerationConfig | None = None,
        streamer: Streamer | None = None,
        *,
        input_ids: Int[Tensor, "B P"] | None = None,
        attention_mask: Int[Tensor, "B P"] | None = None,
        **options: Any,
    ) -> Int[Tensor, "B L"]:
        """Draws a text after each prompt, and into the masks that a prompt holds.

        Prompts of different lengths are padded on the left, with zeros in `attention_mask`; each is drawn from as if
        it were alone. docs/hub.md lists the options; what none of them says is the recipe's.

        Args:
            inputs: prompts; None: one text without a prompt.
            generation_config: options in any config of transformers; those of the call come before it, and it comes
                before the model's own.
            streamer: told of the one text as it comes about: `put` the tokens that stand, `put_draft` after each
                step where it has one, `put` the rest, `end`.
            input_ids: another name of `inputs`.
            attention_mask: 0 for padding, 1 for the prompt.
            options: of this call.

        Returns:
            Padding, prompts and texts, `num_return_sequences` rows a prompt.

        Raises:
            UserError: for what does not fit this model.
        """
        if getattr(self.network, "decoder", self.network) is None:
            raise UserError(
                "this model has no decoder: it reads texts and writes none. Give its network.encode ids, or draw from "
                "a model of recipe concept-diffusion"
            )
        prompts = prompt_rows(inputs, input_ids, attention_mask, device=self.device)
        check_ids(prompts, size=self._parts.tokenizer.vocab_size)
        said = self.generation_config if generation_config is None else generation_config
        request = read_options(self.recipe, said, options, eos_id=self._parts.tokenizer.eos_id)
        prompts = [prompt for prompt in prompts for _ in range(request.copies)]
        if streamer is not None and len(prompts) > 1:
            raise UserError(f"a streamer shows one text, and {len(prompts)} were asked for. Draw one, or leave it out")
        padded = max(len(prompt) for prompt in prompts)
        new = request.tokens_after(padded, longest=self._parts.length)
        eos = self._parts.tokenizer.eos_id
        drawn = torch.full((len(prompts), padded + new), eos, dtype=torch.int64, device=self.device)
        for length, rows in by_length(prompts).items():
            texts = self._draw(torch.stack([prompts[row] for row in rows]), new, request, streamer)
            drawn[rows, padded - length :] = texts
        return drawn

    def _draw(
        self, prompts: Int[Tensor, "B P"], new: int, request: Request, streamer: Streamer | None
    ) -> Int[Tensor, "B L"]:
        """Texts after prompts of one length."""
        parts, length = self.parts, prompts.shape[1]
        ids = torch.nn.functional.pad(prompts, (0, new), value=parts.mask_id)
        fixed = ids != parts.mask_id
        if bool(fixed.all(-1).any()):
            raise UserError("nothing is left to draw: ask for max_new_tokens above 0, or put masks into the prompt")
        spec = request.sampling_of(length, length=length + new)
        sampler = build_sampler(spec, parts, seed=request.seed)
        told, finish = (silent, silent_end) if streamer is None else _telling(streamer, fixed)
        seed = derive_seed(request.seed, "generate", length)
        texts = generate(parts, sampler, Prompt(ids=ids, fixed=fixed), seed=seed, on_step=told)
        if spec.stop:
            texts = until_end(texts, fixed, eos_id=parts.tokenizer.eos_id)
        finish(texts)
        return texts


def silent_end(texts: Int[Tensor, "B L"]) -> None:
    """Tells nobody of the drawn texts."""
    del texts


def export(reference: str, folder: str | os.PathLike[str]) -> Path:
    """Writes the finished model of a run into a folder that transformers, and remask, can load.

    Args:
        reference: a run id, a unique prefix, `last`, or a folder.
        folder: the place.

    Raises:
        UserError: when the run is unknown or unfinished.
    """
    source = model_folder(reference)
    if not (source / "config.json").is_file():
        raise UserError(
            f"{source} holds no finished model to export. If its run was stopped, resume it: remask train --resume RUN"
        )
    RemaskForDiffusion.from_pretrained(source).save_pretrained(folder)
    return Path(folder)


def _fetched(name: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """The folder of a model, from the Hub where it is none of this machine's."""
    valid = ("revision", "cache_dir", "token", "force_download", "local_files_only")
    for option in options:
        if option not in valid:
            given = f"from_pretrained has no option {option}"
            raise UserError(f"{given}; {did_you_mean(option, (*valid, 'config', 'device_map', 'dtype'))}")
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=_FILES, **options))
    except Exception as error:  # the client has exceptions of its own, and the network's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{name} is no folder and cannot be had from the Hub: {reason}. Check name and network"
        ) from None


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f"dtype={dtype} was given; valid are float32, bfloat16, float16 and float64")
    return found


def _add_transformers_files(parts: Model[Any], generation: GenerationConfig, folder: Path, *, name: str) -> None:
    """What transformers reads, beside what remask reads."""
    tokenizer = parts.tokenizer
    path = folder / "config.json"
    record = json.loads(path.read_text(encoding="utf-8")) | {
        "model_type": RemaskConfig.model_type,
        "architectures": [name],
        "vocab_size": tokenizer.vocab_size,
        "mask_token_id": tokenizer.mask_id,
        "eos_token_id": tokenizer.eos_id,
        "transformers_version": transformers_version,
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    transformers_tokenizer(tokenizer, length=parts.length).save_pretrained(folder)
    generation.save_pretrained(folder)


def _telling(streamer: Streamer, fixed: Tensor) -> tuple[Callable[[Frame], None], Callable[[Tensor], None]]:
    """Tells a streamer of each step's draft, and of the end; what stands before the first free place is final."""
    stands = int(fixed[0].long().cumprod(0).sum())
    draft = getattr(streamer, "put_draft", None)

    def told(frame: Frame) -> None:
        if frame.step == 0:
            if stands:
                streamer.put(frame.z[0, :stands].cpu())
        elif draft is not None:
            draft(frame.z[0, stands:].cpu())

    def finish(texts: Tensor) -> None:
        streamer.put(texts[0, stands:].cpu())
        streamer.end()

    return told, finish
