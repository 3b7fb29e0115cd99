"""What a recipe may say: every key, its range, and what it means.

A recipe is one complete experiment. Sections that come in several kinds (tokenizer, schedule, process,
objective, network) are unions told apart by their key `kind`: a new kind is a new class, added to the union
below its siblings, and one branch in `remask.config.build`. Each key is checked
on its own here; `remask.config.contradictions` says which keys do not go together.
"""

from remask.config.schema.bounds import BoundSpec, WeightedBoundSpec
from remask.config.schema.concept_objectives import (
    ConceptBoundSpec,
    ConceptContrastiveSpec,
    ConceptMaskedSpec,
    ConceptTSDAESpec,
    DiversitySpec,
)
from remask.config.schema.health import HealthSpec
from remask.config.schema.latents import (
    ConceptAutoencoderSpec,
    ConceptPriorNetworkSpec,
    ConceptPriorSpec,
    LatentSpec,
)
from remask.config.schema.networks import (
    AdaptedSpec,
    BlocksSpec,
    ConceptSpec,
    LatentTableSpec,
    LettersSpec,
    NetworkSpec,
    PretrainedSpec,
    ReversibleSpec,
    SizesSpec,
    TextAutoencoderNetworkSpec,
    ThoughtPretrainedSpec,
    ThoughtSpec,
    TransformerSpec,
)
from remask.config.schema.noise import (
    BijectiveSpec,
    BlockDiffusionSpec,
    CosineScheduleSpec,
    HybridSpec,
    LikelihoodBoundSpec,
    LinearScheduleSpec,
    LogLinearScheduleSpec,
    MaskedLanguageModelSpec,
    MaskingSpec,
    NextTokenSpec,
    ObjectiveSpec,
    PolynomialScheduleSpec,
    ProcessSpec,
    ProofreadingSpec,
    Reveal,
    ScheduleSpec,
    ScoreEntropySpec,
    UniformSpec,
)
from remask.config.schema.recipe import Recipe
from remask.config.schema.running import EvaluationSpec, SamplingSpec, TrainingSpec
from remask.config.schema.section import Section, Share, Whole
from remask.config.schema.text import (
    DEFAULT_LANES,
    BPETokenizerSpec,
    ByteTokenizerSpec,
    CharacterTokenizerSpec,
    DataSpec,
    HuggingFaceTokenizerSpec,
    SourceSpec,
    TokenizerSpec,
)
from remask.config.schema.thought import GaussianSpec, TextAutoencoderSpec, ThoughtObjectiveSpec
from remask.config.schema.tracking import TrackingSpec

__all__ = [
    "DEFAULT_LANES",
    "AdaptedSpec",
    "BPETokenizerSpec",
    "BijectiveSpec",
    "BlockDiffusionSpec",
    "BlocksSpec",
    "BoundSpec",
    "ByteTokenizerSpec",
    "CharacterTokenizerSpec",
    "ConceptAutoencoderSpec",
    "ConceptBoundSpec",
    "ConceptContrastiveSpec",
    "ConceptMaskedSpec",
    "ConceptPriorNetworkSpec",
    "ConceptPriorSpec",
    "ConceptSpec",
    "ConceptTSDAESpec",
    "CosineScheduleSpec",
    "DataSpec",
    "DiversitySpec",
    "EvaluationSpec",
    "GaussianSpec",
    "HealthSpec",
    "HuggingFaceTokenizerSpec",
    "HybridSpec",
    "LatentSpec",
    "LatentTableSpec",
    "LettersSpec",
    "LikelihoodBoundSpec",
    "LinearScheduleSpec",
    "LogLinearScheduleSpec",
    "MaskedLanguageModelSpec",
    "MaskingSpec",
    "NetworkSpec",
    "NextTokenSpec",
    "ObjectiveSpec",
    "PolynomialScheduleSpec",
    "PretrainedSpec",
    "ProcessSpec",
    "ProofreadingSpec",
    "Recipe",
    "Reveal",
    "ReversibleSpec",
    "SamplingSpec",
    "ScheduleSpec",
    "ScoreEntropySpec",
    "Section",
    "Share",
    "SizesSpec",
    "SourceSpec",
    "TextAutoencoderNetworkSpec",
    "TextAutoencoderSpec",
    "ThoughtObjectiveSpec",
    "ThoughtPretrainedSpec",
    "ThoughtSpec",
    "TokenizerSpec",
    "TrackingSpec",
    "TrainingSpec",
    "TransformerSpec",
    "UniformSpec",
    "WeightedBoundSpec",
    "Whole",
]
