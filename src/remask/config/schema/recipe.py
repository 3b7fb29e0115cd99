"""The whole recipe."""

from pydantic import Field

from remask.config.schema.health import HealthSpec
from remask.config.schema.networks import NetworkSpec, TransformerSpec
from remask.config.schema.noise import LikelihoodBoundSpec, MaskingSpec, ObjectiveSpec, ProcessSpec
from remask.config.schema.running import EvaluationSpec, SamplingSpec, TrainingSpec
from remask.config.schema.section import Section, Whole
from remask.config.schema.text import ByteTokenizerSpec, DataSpec, TokenizerSpec
from remask.config.schema.tracking import TrackingSpec


class Recipe(Section):
    """One complete experiment, from text to judged model."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="name of the recipe; runs are named after it",
        json_schema_extra={"valid": "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"},
    )
    description: str = Field(default="", description="the experiment in one line")
    seed: Whole = Field(default=1, ge=0, description="decides weights, order of the data, noise and samples")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]{0,3}))?)$",
        description="where to compute; auto: CUDA, else MPS, else the CPU",
        json_schema_extra={"valid": "auto, cpu, cuda, cuda:N or mps"},
    )
    data: DataSpec = Field(description="the text")
    tokenizer: TokenizerSpec = Field(default=ByteTokenizerSpec(), description="how text becomes ids")
    process: ProcessSpec | None = Field(default=MaskingSpec(), description="the noise; null: none (next_token)")
    objective: ObjectiveSpec = Field(default=LikelihoodBoundSpec(), description="what is minimised")
    network: NetworkSpec = Field(default=TransformerSpec(), description="what predicts")
    training: TrainingSpec = Field(default=TrainingSpec(), description="how it is trained")
    health: HealthSpec = Field(default=HealthSpec(), description="what is done when training goes wrong")
    tracking: TrackingSpec = Field(default=TrackingSpec(), description="where else figures go")
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="how it is judged")
    sampling: SamplingSpec = Field(default=SamplingSpec(), description="how text is drawn")
