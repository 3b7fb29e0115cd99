r"""What a step of training costs in floating-point operations: measured, and by a closed form.

Counted are the multiplications and additions of matrix products, of the forward pass and of the backward pass: what the
mathematics of the model asks for, whatever the machine, so that two models can be compared. Layers that are computed
again to save memory, in the backward pass or within an attention kernel, count once, as is usual (PaLM,
arXiv:2204.02311, appendix B). Attention counts for all pairs of places, hidden ones too, since they are computed.
"""

from remask.flops.closed_form import Call, analytic_flops, analytic_forward_flops, call_flops
from remask.flops.measured import forward_flops, training_flops
from remask.flops.parameters import active_parameters
from remask.flops.rows import typical_row

__all__ = [
    "Call",
    "active_parameters",
    "analytic_flops",
    "analytic_forward_flops",
    "call_flops",
    "forward_flops",
    "training_flops",
    "typical_row",
]
