"""What a run costs the machine."""

import sys

import torch


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory in use so far: of the device where it counts its own, else of this process, in bytes.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
