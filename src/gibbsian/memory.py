"""Memory: what is free on a device, and the sentence where more is asked for."""

import torch
from torch import Tensor

from gibbsian.errors import GibbsianError


def check(
    like: Tensor, numbers: int, what: str, advice: str, error: type[GibbsianError] = GibbsianError
) -> None:
    """Refuse more numbers of the dtype of `like` than its device has room for.

    Raises
    ------
    GibbsianError
        Or the class of `error`, with both sizes: `what` says whose numbers they are, `advice` what to do.
    """
    need, free = numbers * like.element_size(), free_memory(like)
    if free is not None and need > free:
        raise error(
            f"{what} need about {need / 2**30:,.1f} GiB and {free / 2**30:,.1f} GiB are free; {advice}."
        )


def free_memory(like: Tensor) -> int | None:
    """Return the free bytes on the device of `like`, or None where that is not known."""
    if like.device.type == "cuda":
        device = like.device
        # What PyTorch holds in reserve is free for tensors as well.
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + spare
    try:
        with open("/proc/meminfo") as file:
            rows = dict(line.split(":", 1) for line in file)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
