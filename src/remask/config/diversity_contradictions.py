"""What objectives of concept networks ask of text, of batches and of the network's concepts."""

from collections.abc import Iterator

from remask.config.clash import Contradiction, clash
from remask.config.schema import (
    ConceptBoundSpec,
    ConceptContrastiveSpec,
    ConceptMaskedSpec,
    ConceptSpec,
    ConceptTSDAESpec,
    DiversitySpec,
    EvaluationSpec,
    Recipe,
)


def whole_texts(recipe: Recipe) -> Iterator[Contradiction]:
    """An encoder reads a row as one text, which packed rows are not; and guidance has nothing to compare."""
    objective, data = recipe.objective, recipe.data
    if not isinstance(objective, ConceptMaskedSpec | ConceptTSDAESpec | ConceptContrastiveSpec):
        return
    if data.prefix is None and not data.paired:
        but = "rows then hold parts of several documents, and an encoder reads a row as one text"
        yield clash("objective.kind", "data.prefix", given=None, but=but, give="data.prefix=0")
    if recipe.training.prompt_dropout:
        but, give = f"objective {objective.kind} draws no responses to prompts", "training.prompt_dropout=0"
        given = recipe.training.prompt_dropout
        yield clash("objective.kind", "training.prompt_dropout", given=given, but=but, give=give)


def fitting_views(recipe: Recipe) -> Iterator[Contradiction]:
    """Two views of one text: given tokens would stand whole in both of them, and tell texts apart by themselves."""
    objective, data = recipe.objective, recipe.data
    if not isinstance(objective, ConceptContrastiveSpec):
        return
    gives = bool(data.prefix) or data.paired
    keys = ("data.prompt_key" if data.prompt_key is not None else "data.prefix", "objective.views")
    if objective.views == "sides" and not gives:
        but, give = "the text has no pairs, whose sides could be compared", "data.prompt_key and data.response_key"
        yield clash(*keys, given=objective.views, but=but, give=give)
    if objective.views != "sides" and gives:
        but = "what is given would stand whole in both views"
        yield clash(*keys, given=objective.views, but=but, give="objective.views=sides, or text without given tokens")
    if objective.share is not None and objective.views == "halves":
        but, give = (
            f"views of kind {objective.views} delete nothing",
            "objective.share=null, or objective.views=dropped (or sides)",
        )
        yield clash("objective.views", "objective.share", given=objective.share, but=but, give=give)


def wanted_decoder(recipe: Recipe) -> Iterator[Contradiction]:
    """A decoder is there exactly where a loss trains it, and then nothing else is there for it alone."""
    objective, network = recipe.objective, recipe.network
    if not isinstance(network, ConceptSpec):
        return
    weight = objective.reconstruction_weight if isinstance(objective, ConceptContrastiveSpec) else None
    if network.decoder != "none":
        if weight == 0:
            but = "nothing would train the decoder"
            give = "network.decoder=none, or objective.reconstruction_weight=0.1"
            keys = ("objective.reconstruction_weight", "network.decoder")
            yield clash(*keys, given=network.decoder, but=but, give=give)
        return
    if weight is None:
        but = f"objective {objective.kind} reads what a decoder writes"
        yield clash("objective.kind", "network.decoder", given="none", but=but, give="network.decoder=denoising")
    elif weight:
        but = "a network without a decoder writes nothing"
        give = "objective.reconstruction_weight=0, or network.decoder=position_only"
        yield clash("network.decoder", "objective.reconstruction_weight", given=weight, but=but, give=give)
    if network.freeze_encoder:
        but, give = "nothing would be left to train", "network.freeze_encoder=false"
        yield clash("network.decoder", "network.freeze_encoder", given="true", but=but, give=give)
    if network.latent_width is not None:
        but, give = "it is the width between encoder and decoder, and there is none", "network.latent_width=null"
        yield clash("network.decoder", "network.latent_width", given=network.latent_width, but=but, give=give)


def enough_concepts(recipe: Recipe) -> Iterator[Contradiction]:
    """Objectives that choose among concepts, or push them apart, need a network that has some to learn."""
    objective, network = recipe.objective, recipe.network
    if not isinstance(network, ConceptSpec):
        return
    if isinstance(objective, ConceptBoundSpec) and objective.nested_share and (network.slot_count or 0) < 2:
        but = "the network has no two concepts to choose from"
        give = "objective.nested_share=0, or network.encoder=perceiver with network.concepts=2 or more"
        keys = ("network.encoder", "objective.nested_share")
        yield clash(*keys, given=objective.nested_share, but=but, give=give)
    if isinstance(objective, ConceptContrastiveSpec) and network.encoder == "none":
        but, give = "there is no concept to tell texts apart by", "network.encoder=perceiver"
        yield clash("objective.kind", "network.encoder", given="none", but=but, give=give)
    terms, spec = chosen_terms(recipe), getattr(objective, "diversity", None)
    if isinstance(spec, DiversitySpec) and spec.weights == "learned" and not terms:
        but, give = (
            "no term of diversity weighs anything",
            "a term, e.g. objective.diversity.spread=0.1, or weights=fixed",
        )
        yield clash("objective.diversity", "objective.diversity.weights", given="learned", but=but, give=give)
    if terms and not network.slot_count:
        but, give = "terms of diversity are of a fixed number of concepts", "network.encoder=perceiver, or no term"
        yield clash("objective.diversity", "network.encoder", given=network.encoder, but=but, give=give)
    elif terms and network.freeze_encoder:
        but = f"a frozen encoder cannot follow objective.diversity ({', '.join(terms)})"
        give = "network.freeze_encoder=false, or no term"
        yield clash("objective.diversity", "network.freeze_encoder", given="true", but=but, give=give)
    if terms and recipe.training.prompt_dropout:
        but = "rows without their prompt have the same concepts, which terms of diversity would push apart"
        given, give = recipe.training.prompt_dropout, "training.prompt_dropout=0, or no term"
        yield clash("objective.diversity", "training.prompt_dropout", given=given, but=but, give=give)


def whole_batches(recipe: Recipe) -> Iterator[Contradiction]:
    """What compares the texts of a batch must see all of them at once."""
    reason, training = compares_rows(recipe), recipe.training
    if reason is None:
        return
    if training.micro_batch_size is not None and training.micro_batch_size != training.batch_size:
        but, give = f"{reason} compares all rows of a step", "training.micro_batch_size=null"
        keys = ("objective.kind", "training.micro_batch_size")
        yield clash(*keys, given=training.micro_batch_size, but=but, give=give)
    usual = EvaluationSpec().batch_size
    if isinstance(recipe.objective, ConceptContrastiveSpec) and recipe.evaluation.batch_size != usual:
        but = f"{reason} judges a row among the {usual} of its batch"
        keys, give = ("objective.kind", "evaluation.batch_size"), f"evaluation.batch_size={usual}"
        yield clash(*keys, given=recipe.evaluation.batch_size, but=but, give=give)
    if training.batch_size < 2:
        but, give = f"{reason} compares the rows of a step", "training.batch_size=2 or more"
        yield clash("objective.kind", "training.batch_size", given=training.batch_size, but=but, give=give)


def chosen_terms(recipe: Recipe) -> list[str]:
    """The terms of diversity that weigh anything."""
    spec = getattr(recipe.objective, "diversity", None)
    return list(spec.chosen) if isinstance(spec, DiversitySpec) else []


def compares_rows(recipe: Recipe) -> str | None:
    """What of a recipe's objective looks at several rows at once, in words; None where nothing does."""
    if isinstance(recipe.objective, ConceptContrastiveSpec):
        return "objective concept_contrastive"
    terms = chosen_terms(recipe)
    return f"objective.diversity ({', '.join(terms)})" if terms else None
