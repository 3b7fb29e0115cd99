"""Pretrained causal language models of transformers as networks: found, opened, given a mask, adapted and checked."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from remask.backbones.files import folder_of
from remask.backbones.layouts import layout_of
from remask.backbones.placement import check_placement
from remask.backbones.quantised import keep_packing, open_in_four_bits
from remask.config.adaptation import add_lora, check_quantised, nf4_config, require
from remask.config.schema import AdaptedSpec, PretrainedSpec
from remask.errors import UserError
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.pretrained_tables import StayingEmbedding, WideEmbedding
from remask.networks.reading import Reading, read_both_ways, read_causally, read_in_blocks
from remask.networks.sight import attention_fault, habit_fault
from remask.networks.thought.autoencoder import FrozenReader
from remask.networks.thought.trunks import PretrainedTrunk
from remask.tokenizers import Tokenizer
from remask.tokenizers.huggingface import looks_like_path

ADDED_IDS = 2
"""Ids that a tokenizer may have beyond its model: an end of text and a mask."""


def build_pretrained(
    spec: PretrainedSpec,
    tokenizer: Tokenizer,
    *,
    block_length: int | None,
    length: int,
    steps: int,
    seed: int,
    device: torch.device,
) -> PretrainedDenoiser:
    """The network of a recipe, its weights those of the model that the recipe names.

    Weights are float32 whatever they were saved in, unless they are held in 4 bits; `training.precision` decides the
    arithmetic. All of them lie on the device, but for embeddings that the spec keeps on the CPU.

    Args:
        spec: which model, and how it is adapted.
        tokenizer: the model's own, with a mask.
        block_length: of block-causal attention.
        length: tokens of the longest row.
        steps: of the training, of which attention takes a share to open.
        seed: decides the low-rank updates.
        device: where the network goes.

    Raises:
        UserError: when the model is not there or unreachable, is no causal language model, does not fit the tokenizer
            or the device, or cannot be adapted as asked.
    """
    with quiet():
        places = length + (spec.attention != "causal")
        backbone = prepare_backbone(spec, tokenizer, places=places, length=length, device=device)
        network = _network(spec, backbone, tokenizer, block_length=block_length, steps=steps).to(device)
        refuse_faults(backbone, network, name=spec.name, vocab_size=tokenizer.vocab_size, device=device)
    adapt_backbone(backbone, spec, seed=seed)
    check_placement(network, device=device)
    return network.train()


def prepare_backbone(spec: AdaptedSpec, tokenizer: Tokenizer, *, places: int, length: int, device: torch.device) -> Any:
    """The library's model with the tokenizer's ids, its parts where the spec wants them, in evaluation mode.

    Weights that are not in 4 bits are still on the CPU; send the network that holds the model to the device.

    Args:
        spec: as in `build_pretrained`.
        tokenizer: as in `build_pretrained`.
        places: that a row takes of the model.
        length: tokens of a row.
        device: where 4-bit weights go.

    Raises:
        UserError: as `build_pretrained`.
    """
    backbone = open_backbone(spec, device=device)
    fit_vocabulary(backbone, tokenizer, name=spec.name)
    check_places(backbone, places=places, length=length, name=spec.name)
    if spec.embeddings == "cpu":
        keep_embeddings(backbone)
    return backbone.eval()


def refuse_faults(
    backbone: Any, denoiser: PretrainedDenoiser, *, name: str, vocab_size: int, device: torch.device
) -> None:
    """Looks whether a model's attention obeys a mask.

    Args:
        backbone: the library's model, on the device.
        denoiser: a network around it.
        name: of the model.
        vocab_size: its ids.
        device: where it is.

    Raises:
        UserError: it does not.
    """
    fault = habit_fault(backbone, device=device, vocab_size=vocab_size) or attention_fault(
        denoiser, vocab_size=vocab_size
    )
    if fault is not None:
        raise UserError(f"network.name={name} ({backbone.config.model_type}) cannot be used: {fault}")


def adapt_backbone(backbone: Any, spec: AdaptedSpec, *, seed: int) -> None:
    """Freezes what a spec does not train, in place: with lora all but the low-rank updates it adds.

    Args:
        backbone: as `prepare_backbone` gives it.
        spec: as in `build_pretrained`.
        seed: decides the low-rank updates.

    Raises:
        UserError: as `build_pretrained`.
    """
    if spec.adaptation == "lora":
        add_lora(backbone, rank=spec.lora_rank, alpha=spec.lora_alpha, targets=spec.lora_targets, seed=seed)


def keep_embeddings(backbone: Any) -> None:
    """Keeps a model's embeddings on the CPU from now on, wherever the model is sent; a shared head gets a copy."""
    words, head = backbone.get_input_embeddings(), backbone.get_output_embeddings()
    if isinstance(words, StayingEmbedding):
        return
    table = words.weight.detach()
    if head.weight is words.weight:
        head.weight = nn.Parameter(table.clone(), requires_grad=False)
        backbone.config.tie_word_embeddings = False
    backbone.set_input_embeddings(StayingEmbedding(table.cpu()))


def rebuild_pretrained(
    spec: PretrainedSpec,
    tokenizer: Tokenizer,
    *,
    architecture: Mapping[str, Any],
    block_length: int | None,
    steps: int,
    device: torch.device,
) -> PretrainedDenoiser:
    """The network of a saved model, without adapters and with weights still to be put in; no hub is asked.

    Args:
        spec: as in `build_pretrained`.
        tokenizer: as in `build_pretrained`.
        architecture: what `architecture_of` gave.
        block_length: as in `build_pretrained`.
        steps: as in `build_pretrained`.
        device: where the network goes.

    Raises:
        UserError: as `rebuild_backbone`.
    """
    backbone = rebuild_backbone(architecture)
    return _network(spec, backbone, tokenizer, block_length=block_length, steps=steps).to(device)


def rebuild_backbone(architecture: Mapping[str, Any]) -> Any:
    """The library's model of a saved one, with weights still to be put in, on the CPU.

    Args:
        architecture: what `architecture_of` gave.

    Raises:
        UserError: when this version of transformers does not know the architecture.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = dict(architecture)
    try:
        config = CONFIG_MAPPING[values.pop("model_type")].from_dict(values)
        # the library draws weights from torch's global generator
        with quiet(), torch.random.fork_rng(devices=[]):
            return AutoModelForCausalLM.from_config(
                config, attn_implementation=attention_kind(config), dtype=torch.float32
            )
    except (KeyError, ValueError, ImportError) as error:
        raise UserError(f"this version of transformers cannot rebuild the saved model: {_first_line(error)}") from None


def architecture_of(network: nn.Module) -> dict[str, Any] | None:
    """The library's configuration of the pretrained model within a network, as JSON values; None if there is none."""
    kinds = (PretrainedDenoiser, PretrainedTrunk, FrozenReader)
    found = next((module for module in network.modules() if isinstance(module, kinds)), None)
    if found is None:
        return None
    values = json.loads(found.backbone.config.to_json_string(use_diff=False))
    return {key: value for key, value in values.items() if key != "quantization_config"}


def _network(
    spec: PretrainedSpec, backbone: Any, tokenizer: Tokenizer, *, block_length: int | None, steps: int
) -> PretrainedDenoiser:
    network = PretrainedDenoiser(
        backbone,
        reading=build_reading(spec, block_length=block_length),
        mask_id=tokenizer.mask_id,
        start_id=start_token(backbone.config, tokenizer),
        anneal_steps=math.ceil(spec.anneal_ratio * steps),
    )
    # what predicts the next token never reads a mask: its embedding would be trained without a gradient
    network.mask_embedding.requires_grad_(spec.attention != "causal")
    return network


def build_reading(spec: PretrainedSpec, *, block_length: int | None) -> Reading:
    """How a spec's attention lays rows out."""
    match spec.attention:
        case "bidirectional":
            return read_both_ways
        case "causal":
            return read_causally
        case "block_causal":
            return read_in_blocks(block_length or 1)


def start_token(config: Any, tokenizer: Tokenizer) -> int:
    """What a document begins with: the model's own beginning of text, or the end of the text before."""
    own = getattr(config, "bos_token_id", None)
    return own if isinstance(own, int) and 0 <= own < tokenizer.vocab_size else tokenizer.eos_id


def attention_kind(config: Any) -> str:
    """The library's attention to use: fused where the model has it; scores that are capped are only made by eager."""
    return "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"


# ── opening ────────────────────────────────────────────────────────────────────────────────────────────────────


def open_backbone(spec: AdaptedSpec, *, device: torch.device) -> Any:
    """The library's model, in float32 on the CPU, or in 4 bits on the device.

    Raises:
        UserError: as `build_pretrained`.
    """
    from transformers import AutoModelForCausalLM

    source, config = find_model(spec.name)
    if spec.quantisation == "nf4" and layout_of(config) is not None:
        require("bitsandbytes", extra="quantisation", for_what="network.quantisation=nf4")
        return open_in_four_bits(
            config,
            folder_of(source),
            device=device,
            embeddings=spec.embeddings,
            attention=attention_kind(config),
        )
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": attention_kind(config)}
    if spec.quantisation == "nf4":
        options |= {"quantization_config": nf4_config(device), "device_map": {"": str(device)}}
    try:
        # rows that a file lacks are drawn from torch's global generator
        with torch.random.fork_rng(devices=[]):
            backbone = AutoModelForCausalLM.from_pretrained(source, config=config, **options)
    except Exception as error:  # the parsers and the hub client each have exceptions of their own
        raise UserError(
            f"network.name={spec.name}: its weights cannot be loaded ({_first_line(error)}); check the folder, or the "
            "name and the network"
        ) from None
    if spec.quantisation == "nf4":
        check_quantised(backbone, name=spec.name)
        keep_packing(backbone)
    return backbone


def find_model(name: str) -> tuple[str, Any]:
    """Where a model is (a folder, or its name on the hub) and its configuration.

    Raises:
        UserError: when it is not there or unreachable, or is no causal language model.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    local = Path(name).expanduser()
    if looks_like_path(name) and not local.exists():
        raise UserError(f"network.name={name}: there is no such folder; give a model's folder or its name on the hub")
    source = str(local) if local.exists() else name
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
    except Exception as error:  # as above
        if local.exists():
            raise UserError(
                f"network.name={name}: this folder holds no model of transformers ({_first_line(error)}); give one "
                "that save_pretrained wrote"
            ) from None
        config = _config_from_hub(name)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"network.name={name} is a {config.model_type}, which is no causal language model; name one, such as a "
            "Llama, Qwen or GPT-2"
        )
    return source, config


def _config_from_hub(name: str) -> Any:
    """The configuration from the network; one short question first, since the download retries for a minute."""
    from huggingface_hub import HfApi
    from transformers import AutoConfig

    try:
        HfApi().model_info(name, timeout=10.0)
        return AutoConfig.from_pretrained(name)
    except Exception as error:  # as above, and the network's own
        raise UserError(
            f"network.name={name}: cannot be loaded ({_first_line(error)}); check the name and the network, or give a "
            "folder"
        ) from None


@torch.no_grad()
def fit_vocabulary(backbone: Any, tokenizer: Tokenizer, *, name: str) -> None:
    """Gives a model just the tokenizer's ids, in place; what an added id reads and writes is the mean of the others.

    (The library would draw such rows at random around the mean; and models come with more rows than ids.)

    Raises:
        UserError: when the tokenizer is another model's.
    """
    rows, size = backbone.get_input_embeddings().weight.shape[0], tokenizer.vocab_size
    if size > rows + ADDED_IDS:
        raise UserError(
            f"network.name={name} knows {rows} ids and the tokenizer has {size}; set tokenizer.name={name}, the "
            "model's own"
        )
    if size == rows:
        return
    if isinstance(words := backbone.get_input_embeddings(), WideEmbedding):
        words.resize(size)
        backbone.get_output_embeddings().resize(size)
        backbone.config.vocab_size = size
        return
    kept = min(rows, size)
    with torch.random.fork_rng(devices=[]):
        backbone.resize_token_embeddings(size, mean_resizing=False)
    tables = {id(m.weight): m for m in (backbone.get_input_embeddings(), backbone.get_output_embeddings())}
    for table in tables.values():
        for values in (table.weight, getattr(table, "bias", None)):
            if values is not None:
                values[kept:] = values[:kept].mean(0)


def check_places(backbone: Any, *, places: int, length: int, name: str) -> None:
    """Refuses rows that are longer than a model's table of learned positions; rotary positions have no table.

    Args:
        backbone: the library's model.
        places: that a row takes, a start token before it included where it is read.
        length: tokens of the row.
        name: of the model.

    Raises:
        UserError: when a row and the start token before it do not fit.
    """
    most = getattr(backbone.config, "max_position_embeddings", None)
    words = backbone.get_input_embeddings()
    tables = [m for m in backbone.modules() if isinstance(m, nn.Embedding) and m is not words]
    if most is None or places <= most or not any(most <= table.num_embeddings <= most + ADDED_IDS for table in tables):
        return
    raise UserError(
        f"network.name={name} has {most} learned positions, and a row of data.length={length} takes {places}; "
        f"give data.length={most - places + length} or less"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the library from writing on the terminal, where a user's mistake has one line."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
