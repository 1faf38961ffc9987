"""Moments and log partition functions of truncated Gaussians by compiled kernels, against float64."""

import numpy as np
import pytest
import torch
from scipy import stats

from gibbsian import kernels
from gibbsian.kernels import native
from gibbsian.testing import perturbed
from gibbsian.units import ReLU

pytestmark = pytest.mark.skipif(
    not native.available("truncated_moments"), reason="no compiled kernels here"
)

MADE = (kernels.truncated_moments, kernels.truncated_log_partition)


def _both(units: ReLU, f: torch.Tensor) -> list[torch.Tensor]:
    """Return E[s], E[s²] and Γ of a field, outside autograd."""
    with torch.no_grad():
        c = units.conditional(f)
        return [c["bias"], -2 * c["log_precision"], units.log_partition(f)]


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5, 31), (1000, 130), (0, 4)])
def test_they_agree_with_float64(shape):
    generator = torch.Generator().manual_seed(0)
    units = perturbed(ReLU(shape[-1], learn=True), 0.7, seed=1)
    f = 8 * torch.randn(shape, generator=generator)
    found, truth = _both(units, f), _both(units.double(), f.double())
    for x, y in zip(found, truth, strict=True):
        assert x.dtype == torch.float32 and x.shape == shape
        torch.testing.assert_close(x.double(), y, rtol=2e-6, atol=1e-6)


def test_every_place_of_the_tails_to_a_few_units_of_the_last_place():
    z = torch.cat([-torch.logspace(8, -8, 4000), torch.logspace(-8, 8, 4000)])[:, None]
    one = torch.ones(1)
    mean, square = kernels.truncated_moments(z, 0 * one, one)
    wide = ReLU(1).double()
    truth = _both(wide, z.double())
    assert ((mean.double() - truth[0]) / truth[0]).abs().max() < 8e-7
    assert ((square.double() - truth[1]) / truth[1]).abs().max() < 8e-7
    gamma = kernels.truncated_log_partition(z, 0 * one, one).double()
    assert ((gamma - truth[2]) / truth[2].abs().clamp(min=1.0)).abs().max() < 4e-7


@pytest.mark.parametrize("z", [-30.0, -3.0, -0.2, 0.0, 0.2, 3.0, 30.0])
def test_they_are_scipys(z):
    gamma = 2.5
    law = stats.truncnorm(-z, np.inf, loc=z / gamma**0.5, scale=gamma**-0.5)
    field, one = torch.full((1, 1), z * gamma**0.5), torch.ones(1)
    mean, square = kernels.truncated_moments(field, 0 * one, gamma * one)
    assert mean.item() == pytest.approx(law.mean(), rel=2e-6)
    assert square.item() == pytest.approx(law.moment(2), rel=2e-6)
    log_z = z * z / 2 + 0.5 * np.log(2 * np.pi / gamma) + stats.norm.logcdf(z)
    found = kernels.truncated_log_partition(field, 0 * one, gamma * one).item()
    assert found == pytest.approx(log_z, rel=1e-6, abs=1e-6)


def test_extremes():
    f = torch.tensor([[-torch.inf, -1e30, 1e15, torch.nan]])
    one = torch.ones(4)
    mean, square = kernels.truncated_moments(f, 0 * one, one)
    assert mean[0, 0] == square[0, 0] == 0
    assert mean[0, 1] == pytest.approx(1e-30) and square[0, 1] == 0
    assert mean[0, 2] == f[0, 2] and torch.isfinite(square[0, 2])
    assert mean[0, 3].isnan() and square[0, 3].isnan()
    gamma = kernels.truncated_log_partition(f, 0 * one, one)[0]
    assert gamma[0] == -torch.inf and gamma[3].isnan()
    assert gamma[1] == pytest.approx(-np.log(1e30))


def test_autograd_and_float64_go_past_them():
    units = perturbed(ReLU(5, learn=True), 0.5, seed=2)
    f = torch.linspace(-3, 3, 5).repeat(2, 1).requires_grad_()
    units.log_partition(f).sum().backward()
    mean = units.conditional(f.detach())["bias"]
    torch.testing.assert_close(f.grad, mean.detach())
    assert mean.requires_grad
    for one in MADE:
        wide = units.bias.detach().double()
        assert one(f.detach().double(), wide, wide.exp()) is None


def test_without_a_compiler_there_are_none(monkeypatch):
    monkeypatch.setattr(native, "available", lambda name="": False)
    units = perturbed(ReLU(5), 0.5, seed=3)
    f = torch.linspace(-9, 9, 5)[None]
    bias = units.bias.detach()
    assert all(one(f, bias, bias.exp()) is None for one in MADE)
    plain = _both(units, f)
    monkeypatch.undo()
    for x, y in zip(_both(units, f), plain, strict=True):
        torch.testing.assert_close(x, y, rtol=2e-6, atol=1e-6)
