"""The device that a machine computes on."""

from typing import Any

import torch

from gibbsian.errors import GibbsianError


def find(name: Any) -> torch.device:
    """Return a device of PyTorch by its name: cpu, cuda, cuda:1, mps, ….

    Raises
    ------
    GibbsianError
        If PyTorch knows no such device, or this computer has none.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        torch.Generator(device)  # "meta" tensors have no values, and so no generator
    except (RuntimeError, AssertionError, TypeError):
        raise GibbsianError(
            f"There is no device {name!r} on this computer; use 'cpu', or install a PyTorch that "
            "supports it."
        ) from None
    return device
