"""remask models in lm-evaluation-harness: importing this registers the model type `remask` there.

    python -m remask.harness run --model remask --model_args run=last,draws=32 --tasks NAME --include_path FOLDER

is the harness's own command with that import before it. docs/hub.md says what the figures mean.
"""

from remask.errors import UserError

try:
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise UserError("lm-evaluation-harness is not installed; install it with: pip install 'remask[harness]'") from error

from remask.harness.language_model import RemaskLM

register_model("remask")(RemaskLM)

__all__ = ["RemaskLM"]
