"""What a recipe may say of where else its figures go."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from remask.config.schema.section import Section, as_tuple


class TrackingSpec(Section):
    """Experiment trackers that are fed the lines of metrics.jsonl; the run folder keeps them in any case."""

    sinks: Annotated[tuple[Literal["wandb", "trackio", "tensorboard"], ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="trackers that get every metric too: wandb, trackio, tensorboard (each an extra)"
    )
    project: str = Field(
        default="remask",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="the trackers' name for a group of runs",
        json_schema_extra={"valid": "1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit"},
    )
    mode: Literal["offline", "online"] = Field(
        default="offline", description="wandb: keep its files in the run folder, or send them as they come"
    )
