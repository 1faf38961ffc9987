"""Rows without the noise that their transform added: the jump of walk-jump sampling.

A machine of noisy rows v = x + σε has smooth energies, which chains cross. The clean row is then had back in
one move, with nothing but the machine's own score:

    E[x | v] = v + σ² ∇ log p(v)        (Robbins 1956; Miyasawa 1961; Saremi & Hyvärinen 2019)

which holds for any distribution of x. With Gaussian visible units of precision γ and the hidden units summed
out, ∇ log p(v) = γ (E[v′ | E[h | v]] − v).
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian import meanfield
from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers.base import as_rows
from gibbsian.units import base as unit

if TYPE_CHECKING:
    from gibbsian.trained import Trained


@torch.no_grad()
def remove_noise(
    subject: "Trained | BoltzmannMachine",
    x: Float[Tensor, "rows n"],
    noise: Any = None,
) -> Float[Tensor, "rows n"]:
    """Return E[x | x + σε] of noisy rows, by the machine that was trained on such rows.

    It is the mean of the clean rows that may lie behind a noisy one, so it is smoother than they are: the
    more so the larger σ is. With several hidden layers their means are those of mean field.

    Parameters
    ----------
    subject : Trained or BoltzmannMachine
        A run, whose transform says what noise its rows have, or a machine.
    x : Tensor (rows, n)
        Rows as the machine sees them, or samples of it.
    noise : float or Tensor (n,), optional
        σ of each visible unit, in the units of the rows; that of the run unless given. Columns that are not
        real-valued are left as they are.

    Returns
    -------
    Tensor (rows, n)

    Raises
    ------
    GibbsianError
        If a machine comes without its noise, or the noise is no standard deviation.
    DataError
        If the rows do not fit the machine.
    """
    if isinstance(subject, BoltzmannMachine):
        machine = subject
        if noise is None:
            raise GibbsianError(
                "A machine alone does not know the noise of its rows; give its standard deviation, noise=0.5 "
                "say."
            )
    else:
        machine, noise = subject.machine, subject.transform.noise if noise is None else noise
    x = as_rows(x, "What is denoised are rows of the visible layer")
    machine.check(x, "they")
    rows = x.to(next(machine.parameters()))
    sigma = _deviations(noise, rows)
    precision = unit.tail_precision(machine.layers[0])
    real = torch.isfinite(precision) & ~unit.one_sided(machine.layers[0]).to(precision.device)
    # No density of noisy rows is narrower than the noise; a machine that is would jump too far.
    share = torch.where(real, (sigma**2 * precision).clamp(max=1), 0)
    if not bool(share.any()):
        return rows
    means = meanfield.infer(machine, rows).means
    expected = unit.mean(machine.layers[0], machine.field(0, means))
    return torch.where(real, rows + share * (expected - rows), rows)


def _deviations(noise: Any, rows: Tensor) -> Tensor:
    """Return the noise as one standard deviation of each column."""
    try:
        sigma = torch.as_tensor(noise, dtype=rows.dtype, device=rows.device)
        sigma = sigma.expand(rows.shape[1])
    except (TypeError, ValueError, RuntimeError):
        raise GibbsianError(
            f"The noise is a number or {rows.shape[1]} of them, one a visible unit, not {noise!r:.60}."
        ) from None
    if not bool(((sigma >= 0) & torch.isfinite(sigma)).all()):
        raise DataError("The noise is a standard deviation: 0 or a positive number for each unit.")
    return sigma


__all__ = ["remove_noise"]
