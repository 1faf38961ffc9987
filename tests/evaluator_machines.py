"""Small machines of many unit pairs, away from their defaults, for the evaluators' tests."""

import torch
from torch import Tensor

from gibbsian.machine import BoltzmannMachine
from gibbsian.models import gaussian_rbm, hopfield, layered, rbm, softmax_rbm
from gibbsian.testing import enumerate_states, perturbed
from gibbsian.testing.tables import Table
from gibbsian.units import Bernoulli, Binomial, Gaussian, Mixed, ReLU, Softmax, Spin


def build() -> dict[str, BoltzmannMachine]:
    """Return machines in float32 whose log Z enumeration or quadrature knows."""
    table = Mixed([Bernoulli(2), Gaussian(1, precision=2.0), Softmax(1, 3)])
    plain = {
        "bernoulli-bernoulli": (rbm(6, 5), 0.9),
        "spin-bernoulli": (rbm(Spin(5), 4), 0.5),
        "softmax-bernoulli": (softmax_rbm(3, 3, 4), 0.9),
        "binomial-spin": (rbm(Binomial(3, 3), Spin(4)), 0.5),
        "bernoulli-softmax": (rbm(5, Softmax(2, 3)), 0.9),
        "gaussian-bernoulli": (gaussian_rbm(Gaussian(2, mean=0.5, precision=3.0), 5), 0.7),
        "mixed-bernoulli": (rbm(table, 4), 0.7),
        "relu-bernoulli": (rbm(ReLU(2, precision=2.0), 3), 0.6),
        "hopfield": (hopfield(6, 2), 0.4),
        "bernoulli-relu": (rbm(5, ReLU(2, precision=2.0)), 0.6),
        "gaussian-gaussian": (gaussian_rbm(Gaussian(2, precision=3.0), Gaussian(1)), 0.3),
        "gaussian-relu": (gaussian_rbm(Gaussian(1, precision=3.0), ReLU(2)), 0.4),
        "three layers": (layered(Bernoulli(5), Bernoulli(4), Spin(3)), 0.6),
        "three mixed layers": (layered(Gaussian(1), Bernoulli(4), Binomial(2, 2)), 0.6),
        "four layers": (layered(Spin(3), Bernoulli(3), Softmax(1, 3), Bernoulli(3)), 0.6),
    }
    return {k: perturbed(m, scale, seed=3).float() for k, (m, scale) in plain.items()}


MACHINES = build()
FINITE_SIDE = [k for k in MACHINES if k not in ("gaussian-gaussian", "gaussian-relu")]
RBMS = [k for k in MACHINES if "layers" not in k]
_TABLES: dict[str, Table] = {}


def truth(name: str) -> Table:
    """Return the table of all states of a machine, made once."""
    if name not in _TABLES:
        _TABLES[name] = enumerate_states(MACHINES[name])
    return _TABLES[name]


def exact_samples(name: str, n: int, seed: int) -> list[Tensor]:
    """Draw states of all layers from the truth."""
    table = truth(name)
    g = torch.Generator().manual_seed(seed)
    index = torch.multinomial(table.probabilities, n, replacement=True, generator=g)
    return [s[index].float() for s in table.states]


def rows(machine: BoltzmannMachine, n: int, seed: int = 0) -> Tensor:
    """Draw valid visible rows that are not samples of the machine."""
    g = torch.Generator().manual_seed(seed)
    return machine.layers[0].domain.noise(n, g)


def wide_rbm(seed: int = 1) -> BoltzmannMachine:
    """Return the 12 × 8 machine of couplings with standard deviation 1.2."""
    g = torch.Generator().manual_seed(seed)
    machine = rbm(12, 8)
    with torch.no_grad():
        for p, scale in zip(machine.parameters(), (0.5, 0.5, 1.2), strict=True):
            p.copy_(scale * torch.randn(p.shape, generator=g))
    return machine
