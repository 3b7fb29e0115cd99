"""All that a recipe needs before a run can begin: what a user can get wrong is found here, before a run exists."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch
from torch import nn

from remask.checkpoints import network_tensors, put_weights
from remask.codecs import Codec, open_codec
from remask.config.build import (
    Text,
    TextWatcher,
    build_feed,
    build_model,
    build_rows,
    build_sampler,
    build_text,
    check_compiler,
)
from remask.config.diversity_contradictions import compares_rows
from remask.config.saved import load_model
from remask.config.schema import AdaptedSpec, ConceptSpec, Recipe
from remask.data.batch import Batch
from remask.data.co_occurrences import co_occurrences, company
from remask.data.feed import Feed
from remask.data.packing import Rows
from remask.errors import UserError
from remask.evaluation.assessment import assessed
from remask.evaluation.likelihood import evaluation_batches
from remask.evaluation.trivial import fit_trivial
from remask.generation import check_length
from remask.model import Model
from remask.networks.concepts import ConceptNetwork
from remask.networks.mask_bias import MaskBias
from remask.networks.term_weights import TERM_WEIGHTS
from remask.objectives.concepts.prior import ConceptPrior
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.thought import ThoughtDiffusion
from remask.runs import Registry, runs_home
from remask.runs.lineage import CONVERTED, ENCLOSED, INITIALISED


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a recipe needs before a run can begin.

    Attributes:
        recipe: the experiment, which names the model that it starts from as it is named at any time and from anywhere.
        text: corpus, tokenizer and token caches.
        device: where it is trained.
        model: untrained, and on `device` unless its weights are yet to be shared out.
        feed: what training reads.
        held_out_rows: the validation split in rows.
        held_out: those of them that are judged during training.
        trivial: figures of trivial predictors on those rows: figure → predictor → value.
        end_share: the share of training tokens that end a document, where segments show ends; else None.
        origins: the models that the weights come from, and how, as a record's lineage has them; none for fresh ones.
    """

    recipe: Recipe
    text: Text
    device: torch.device
    model: Model
    feed: Feed
    held_out_rows: Rows
    held_out: Sequence[Batch]
    trivial: Mapping[str, Mapping[str, float]]
    end_share: float | None
    origins: Sequence[Mapping[str, str]] = ()

    @property
    def headline_trivial(self) -> Mapping[str, float]:
        """What trivial predictors get for the figure that heads the run's record."""
        return self.trivial.get("bits_per_byte") or next(iter(self.trivial.values()))

    @property
    def held_out_text(self) -> str:
        """A held-out row as text."""
        batch = self.held_out[0]
        return self.text.tokenizer.decode(batch.ids[0][batch.targets[0]].numpy())


def gather(
    recipe: Recipe, *, cache: Path, device: torch.device, processes: int = 1, watch: TextWatcher | None = None
) -> Materials:
    """Builds all that a recipe names, without leaving a trace outside the cache.

    Args:
        recipe: the experiment.
        cache: the cache home.
        device: where this process computes.
        processes: how many train together.
        watch: told of the tokenizing.

    Raises:
        UserError: when something that the recipe names is not there, does not fit or is too small.
    """
    check_precision(recipe, device)
    check_compiler(recipe, device)
    check_processes(recipe, processes)
    text = build_text(recipe, cache=cache, watch=watch)
    feed = build_feed(recipe, text)
    feed.check(processes=processes)
    if "validation" not in text.stores:
        raise UserError("the text has no validation split: name one with data.validation=FILE")
    held_out_rows = build_rows(recipe.data, text.stores["validation"])
    held_out = list(evaluation_batches(held_out_rows, limit=recipe.training.evaluate_rows))
    model, recipe, origins = _made(recipe, text, device=device, processes=processes)
    build_sampler(recipe.sampling, model, seed=recipe.seed)
    check_length(recipe.sampling.length or recipe.data.length, model)
    predictors = fit_trivial(text.stores["train"], text.tokenizer, cache=cache)
    trivial = trivial_figures(model, held_out, predictors.nats(held_out))
    return Materials(
        recipe=recipe,
        text=text,
        device=device,
        model=model,
        feed=feed,
        held_out_rows=held_out_rows,
        held_out=held_out,
        trivial=trivial,
        end_share=predictors.end_share if held_out_rows.shows_ends else None,
        origins=origins,
    )


def _made(
    recipe: Recipe, text: Text, *, device: torch.device, processes: int
) -> tuple[Model, Recipe, list[dict[str, str]]]:
    """The model, the recipe with lasting names of the runs that it stands on, and where weights came from."""
    # weights that one device cannot hold are made on the CPU and shared out from there; 4 bits on the device itself
    in_four_bits = isinstance(recipe.network, AdaptedSpec) and recipe.network.quantisation != "none"
    shared = recipe.training.parallel == "fsdp" and processes > 1 and not in_four_bits
    codec, recipe = _codec(recipe, text)
    architecture = None if codec is None else codec.architecture
    place = torch.device("cpu") if shared else device
    model = build_model(recipe, text.tokenizer, device=place, architecture=architecture)
    taken = None
    if recipe.training.start_from is not None:  # first, for what is this recipe's own is put over what another run had
        start_from = lasting_name(recipe.training.start_from)
        taken = {"how": INITIALISED, **take_weights(model, start_from)}
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"start_from": start_from})})
    if isinstance(model.network, ConceptNetwork) and model.network.rarity is not None:
        model.network.hear_counts(torch.from_numpy(text.stores["train"].source_counts()))
    if taken is None or "but" in taken:  # an encoder that was taken has learned by vectors of its own
        _tell_company(model, recipe, text)
    origins = list[dict[str, str]]()
    if codec is not None:
        codec.fill(model.network)
        codec.measure(model.network, build_rows(recipe.data, text.stores["train"]), eos_id=text.tokenizer.eos_id)
        origins.append({"how": ENCLOSED, "from": codec.name})
    if isinstance(recipe.network, AdaptedSpec):
        origins.append({"how": CONVERTED, "from": recipe.network.name})
    return model, recipe, origins if taken is None else [*origins, taken]


def _tell_company(model: Model, recipe: Recipe, text: Text) -> None:
    """Tells a network that asks for it what tokens stand near, in all sources as heavy as their examples.

    Raises:
        UserError: no two tokens keep company.
    """
    network, data = recipe.network, recipe.data
    if not isinstance(network, ConceptSpec) or network.co_occurrence is None:
        return
    assert isinstance(model.network, ConceptNetwork), "built of this section"
    weights = (data.weight, *(entry.weight for entry in data.mixture))
    parts = [
        co_occurrences(store, window=network.co_occurrence.window) for store in (text.stores["train"], *text.others)
    ]
    heavy = [part * (weight / max(part.sum(), 1.0)) for part, weight in zip(parts, weights, strict=True)]
    vectors = company(reduce(operator.add, heavy), width=network.band_width)
    if vectors is None:
        raise UserError(
            "network.co_occurrence: no two tokens of the training text stand near each other oftener than by chance. "
            "Give a larger text, or network.co_occurrence=null"
        )
    model.network.hear_company(torch.from_numpy(vectors))


def _codec(recipe: Recipe, text: Text) -> tuple[Codec | None, Recipe]:
    """The finished model that a recipe's network is around, if any, and the recipe with its name for good."""
    given = getattr(recipe.network, "codec", None)
    if given is None:
        return None, recipe
    name = lasting_name(given)
    codec = open_codec(recipe, name=name, tokenizer=text.tokenizer)
    return codec, recipe.model_copy(update={"network": recipe.network.model_copy(update={"codec": name})})


def trivial_figures(
    model: Model, held_out: Sequence[Batch], nats: Mapping[str, float]
) -> dict[str, Mapping[str, float]]:
    """What trivial predictors get for each figure that the model is judged by: figure → predictor → value.

    Args:
        model: its objective says by which.
        held_out: the judged rows.
        nats: sums of −log p over them, by predictor.
    """
    tokens = sum(int(batch.targets.sum()) for batch in held_out)
    per_token = {name: value / tokens for name, value in nats.items()}
    objective = assessed(model.objective)
    if objective is not None:
        own = {"loss": objective.trivial_loss} if isinstance(objective, ThoughtDiffusion) else {}
        return {objective.quantity: objective.trivial(held_out, per_token), **{k: v for k, v in own.items() if v}}
    size = sum(int((batch.byte_lengths * batch.targets).sum()) for batch in held_out)
    bits = {name: value / math.log(2) / size for name, value in nats.items()}
    vectors = unwrapped(model.objective)
    own = {"loss": vectors.trivial_loss} if isinstance(vectors, ConceptPrior) else {}
    return {"nats_per_token": per_token, "bits_per_byte": bits, **own}


def lasting_name(reference: str) -> str:
    """A model by what names the same one later and from elsewhere: its run's id, or its folder's full path.

    Args:
        reference: as `take_weights` takes it; `last` is another run as soon as a training begins.

    Raises:
        UserError: no run fits, or more than one.
    """
    folder = Path(reference)
    if (folder / "config.json").is_file():
        return str(folder.resolve())
    registry = Registry(runs_home())
    record = registry.find(reference)
    lies_elsewhere = Path(record.folder).is_absolute()
    return str(registry.folder_of(record).path) if lies_elsewhere else record.id


def take_weights(model: Model, reference: str) -> dict[str, str]:
    """Puts the weights of another run's model into an untrained one.

    Where both read through concepts and their encoders are not the same, each keeps its own encoder: whoever decodes
    has learned the language, and needs not learn it again to be told of a text in another way. Learned weights of the
    loss's terms are not taken over: they belong to what was minimised.

    Args:
        model: changed in place.
        reference: a run id, a unique prefix, `last`, a run's folder, or a model folder.

    Returns:
        `from`, the model by a name that stays true: `RUN/model`, or the folder; and `but`, the part whose weights were
        not taken, if any.

    Raises:
        UserError: when there is no such model, or its vocabulary or the rest of its network is another.
    """
    folder = Path(reference)
    name = str(folder.resolve())
    if not (folder / "config.json").is_file():
        registry = Registry(runs_home())
        record = registry.find(reference)
        folder, name = registry.folder_of(record).model_path, f"{record.id}/model"
    other, _ = load_model(folder, device=model.device)
    if other.tokenizer.fingerprint != model.tokenizer.fingerprint:
        raise UserError(
            f"training.start_from={reference}: that model reads text with another tokenizer. Give the text or the "
            "tokenizer it was trained with"
        )
    network, found = _unbiased(model.network), network_tensors(_unbiased(other.network))
    own = network_tensors(network)
    another = isinstance(network, ConceptNetwork) and _encoder_shapes(own) != _encoder_shapes(found)
    kept = (f"{TERM_WEIGHTS}.", *(ConceptNetwork.READERS if another else ()))
    taken = {each: value for each, value in own.items() if each.startswith(kept)}
    found = {each: value for each, value in found.items() if not each.startswith(kept)}
    put_weights(network, {**found, **taken}, source=folder)
    return {"from": name, **({"but": "encoder"} if another else {})}


def _encoder_shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """What an encoder of concepts consists of."""
    return {name: value.shape for name, value in tensors.items() if name.startswith(ConceptNetwork.READERS)}


def _unbiased(network: nn.Module) -> nn.Module:
    """The network itself, without the bias of [MASK] that proofreading puts around it."""
    return network.network if isinstance(network, MaskBias) else network


def check_processes(recipe: Recipe, processes: int) -> None:
    """Refuses several processes where an objective compares all rows of a step, of which each has its own.

    So it does where a table stays on the CPU, which processes on GPUs do not share out.

    Raises:
        UserError: naming what compares them, or stays.
    """
    if processes > 1 and getattr(recipe.network, "embeddings", "device") == "cpu":
        raise UserError(
            f"network.embeddings=cpu is for one process, and {processes} were started. Start one, or give "
            "network.embeddings=device"
        )
    reason = compares_rows(recipe)
    if processes > 1 and reason is not None:
        raise UserError(
            f"{reason} compares all rows of a step, and {processes} processes would each see its own. Start one, or "
            "leave it out"
        )


def check_precision(recipe: Recipe, device: torch.device) -> None:
    """Refuses an arithmetic that the device does not have.

    Raises:
        UserError: for float16 without a GPU, or bfloat16 on a GPU that only emulates it.
    """
    precision = recipe.training.precision
    if precision == "fp16" and device.type != "cuda":
        raise UserError(
            f"training.precision=fp16 needs a CUDA device, and this run is on {device}. Valid: float32, bf16"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"training.precision=bf16: {device} has no bfloat16 arithmetic. Valid: float32, fp16")
