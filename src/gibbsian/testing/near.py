"""Equality of a closed form with its truth, to a tolerance that the truth's own method allows."""

import torch
from torch import Tensor


def near(
    found: Tensor | float,
    truth: Tensor | float,
    what: str,
    rtol: float = 1e-7,
    atol: float = 1e-7,
) -> None:
    """Raise an `AssertionError` that begins with `what` unless the two agree.

    Parameters
    ----------
    found, truth : Tensor or float
        Of one shape and dtype.
    what : str
        What is compared.
    rtol, atol : float
        Allowed |found − truth| is atol + rtol · |truth|.
    """
    torch.testing.assert_close(
        found, truth, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}"
    )
