"""Changes of log partition functions in one pass, and what they are made of."""

from itertools import pairwise

import pytest
import torch

from gibbsian import kernels
from gibbsian.evaluators.annealing import Annealing
from gibbsian.kernels import native, plain
from gibbsian.models import rbm
from gibbsian.path import reference
from gibbsian.testing import perturbed
from gibbsian.units import Bernoulli, Spin

GAINS = ("bernoulli_gain", "spin_gain")


@pytest.mark.parametrize("name", GAINS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5, 31), (100, 64), (1000, 130), (0, 4)])
def test_it_agrees_with_float64(name, shape):
    g = torch.Generator().manual_seed(0)
    field = 6 * torch.randn(shape, generator=g)
    b0 = torch.randn(shape[-1], generator=g)
    b1 = b0 + 0.1 * torch.randn(shape[-1], generator=g)
    found = getattr(kernels, name)(field, b0, b1, 0.3, 0.3125)
    truth = getattr(plain, name)(field.double(), b0.double(), b1.double(), 0.3, 0.3125)
    assert found.dtype == torch.float64 and found.shape == shape[:-1]
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-6 * shape[-1] ** 0.5)


@pytest.mark.parametrize(("name", "units"), [("bernoulli_gain", Bernoulli), ("spin_gain", Spin)])
def test_it_is_the_difference_of_log_partitions(name, units):
    layer = perturbed(units(7), 1.0, seed=2).double()
    f = torch.linspace(-30, 30, 7 * 5, dtype=torch.float64).reshape(5, 7)
    bias = layer.bias.detach()
    truth = (layer.log_partition(0.9 * f) - layer.log_partition(0.25 * f)).sum(dim=-1)
    for wide in (torch.float64, torch.float32):
        found = getattr(kernels, name)(f.to(wide), bias.to(wide), bias.to(wide), 0.25, 0.9)
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", GAINS)
def test_extremes(name):
    field = torch.tensor([[0.0, 1e4, -1e4, 150.0, -150.0, 1e-6]])
    zero = torch.zeros(6)
    found = getattr(kernels, name)(field, zero, zero, 0.5, 1.0)
    truth = getattr(plain, name)(field.double(), zero.double(), zero.double(), 0.5, 1.0)
    torch.testing.assert_close(found, truth)
    assert getattr(kernels, name)(field, zero, zero, 0.7, 0.7).item() == 0


@pytest.mark.parametrize("name", GAINS)
def test_small_steps_have_no_bias(name):
    """Ten thousand temperatures add up to the whole way, to the rounding of single steps."""
    g = torch.Generator().manual_seed(1)
    field, bias = 8 * torch.randn(50, 40, generator=g), torch.randn(40, generator=g)
    betas = torch.linspace(0, 1, 2001, dtype=torch.float64).tolist()
    one = getattr(kernels, name)
    total = sum(one(field, bias, bias, a, b) for a, b in pairwise(betas))
    truth = getattr(plain, name)(field.double(), bias.double(), bias.double(), 0.0, 1.0)
    error = total - truth
    spread = error.std() / 50**0.5
    assert error.abs().max() < 2e-3 and abs(error.mean()) < 4 * spread + 1e-4


def test_threads_do_not_matter():
    field, bias = torch.randn(300, 100), torch.randn(100)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(kernels.bernoulli_gain(field, bias, bias, 0.1, 0.2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_annealing_calls_it(monkeypatch, generator):
    """A wrong gain must be felt, or the test of annealing would prove nothing of the kernel."""
    if not native.available():
        pytest.skip("the compiled kernels are off")
    machine = perturbed(rbm(6, 5), 0.8, seed=0).float()
    walk = Annealing(machine, reference(machine, torch.ones(3, 6)), generator)
    walk.draw(4)
    right = walk.gain(0.2, 0.6)
    gain = native.gain
    monkeypatch.setattr(native, "gain", lambda *a: 1.01 * gain(*a))
    assert not torch.allclose(walk.gain(0.2, 0.6), right, rtol=1e-4)
