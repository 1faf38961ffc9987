"""The Ising model on a torus as a bipartite spin machine: log Z in closed form, and a barrier to cross."""

import math
from itertools import product

import pytest
import torch
from torch import Generator

from gibbsian import evaluators, models
from gibbsian.evaluators import ladder_log_z
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import reference
from gibbsian.samplers import Gibbs, Tempering, run
from gibbsian.units import Spin


def log_z_of_torus(n: int, k: float) -> float:
    """Return log Z of n × n spins, n even, with reduced coupling `k` (Kaufman 1949).

    Z = ½ (2 sinh 2k)^(n²/2) [Π 2cosh(nγ_{2r+1}/2) + Π 2sinh(nγ_{2r+1}/2) + Π 2cosh(nγ_{2r}/2) + Π 2sinh(nγ_{2r}/2)],
    cosh γ_l = cosh² 2k / sinh 2k − cos(πl/n), γ_0 = 2k + log tanh k.
    """  # noqa: E501
    ratio = math.cosh(2 * k) ** 2 / math.sinh(2 * k)
    gamma = [2 * k + math.log(math.tanh(k))]
    gamma += [math.acosh(ratio - math.cos(math.pi * i / n)) for i in range(1, 2 * n)]
    terms = []
    for part in (gamma[1::2], gamma[0::2]):
        x = [n * abs(g) / 2 for g in part]
        terms.append((1.0, sum(a + math.log1p(math.exp(-2 * a)) for a in x)))
        sign = math.copysign(1.0, part[0])
        terms.append((sign, sum(a + math.log(-math.expm1(-2 * a)) for a in x)))
    top = max(t for _, t in terms)
    total = top + math.log(sum(s * math.exp(t - top) for s, t in terms))
    return total - math.log(2) + n * n / 2 * math.log(2 * math.sinh(2 * k))


def torus(n: int, k: float) -> BoltzmannMachine:
    """Return the machine whose layers are the black and the white squares of the board."""
    places = [[p for p in product(range(n), repeat=2) if sum(p) % 2 == c] for c in (0, 1)]
    white = {p: i for i, p in enumerate(places[1])}
    machine = models.rbm(Spin(len(places[0])), Spin(len(places[1])))
    with torch.no_grad():
        for a, (i, j) in enumerate(places[0]):
            for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                machine.joints[0].weight[a, white[(i + di) % n, (j + dj) % n]] += k
    return machine


def _reference(machine: BoltzmannMachine) -> BoltzmannMachine:
    up = torch.ones(1, machine.sizes[0])
    return reference(machine, torch.cat([up, -up]))


@pytest.mark.parametrize("k", [0.2, 0.44, 0.6])
def test_the_closed_form_is_the_sum_over_states(k):
    assert log_z_of_torus(4, k) == pytest.approx(evaluators.log_z(torus(4, k)), abs=1e-4)


@pytest.mark.parametrize(("n", "k"), [(8, 0.3), (8, 0.6), (16, 0.4)])
def test_log_z_of_a_ladder_is_the_closed_form(n, k):
    machine = torus(n, k)
    found = ladder_log_z(machine, _reference(machine), 40, None, 200, generator=0)
    assert abs(found.log_z - log_z_of_torus(n, k)) < 4.5 * found.standard_error
    assert found.standard_error < 0.15
    assert found.doubt is None
    # A coupling that is 2 % off is another answer.
    assert abs(found.log_z - log_z_of_torus(n, 1.02 * k)) > 4.5 * found.standard_error


def test_an_interval_reaches_to_where_a_ladder_is_still_climbing():
    """Chains begin at the bottom: without a burn-in log Z is too small, and the interval says so."""
    machine, truth = torus(16, 0.5), log_z_of_torus(16, 0.5)
    short, long = (
        ladder_log_z(machine, _reference(machine), 60, None, n, generator=0, burn=b)
        for n, b in ((80, 0), (600, 300))
    )
    assert short.drift > 0 and short.log_z < truth - 4.5 * short.standard_error
    assert short.high - short.log_z > 1.5 * (short.log_z - short.low)
    assert abs(long.drift) < short.drift / 4
    assert long.low < truth < long.high


def _check_all(n: int, k: float, chains: int, steps: int, temperatures: int, within: float) -> None:
    """Hold AIS, reverse AIS, the bridge and the energy against Kaufman's log Z and its derivative."""
    machine, truth = torus(n, k), log_z_of_torus(n, k)
    start = _reference(machine)
    bridge = ladder_log_z(machine, start, chains, None, steps, generator=0)
    assert bridge.doubt is None
    estimates = {
        "AIS": evaluators.ais(machine, start, chains, temperatures, generator=1),
        "reverse AIS": evaluators.reverse_ais(
            machine, start, bridge.samples, temperatures, generator=2
        ),
        "bridge": bridge,
    }
    for name, z in estimates.items():
        assert z.standard_error < within, name
        assert abs(z.log_z - truth) < 4.5 * z.standard_error, name
        # A coupling that is 2 % off is another answer.
        assert abs(z.log_z - log_z_of_torus(n, 1.02 * k)) > 4.5 * z.standard_error, name
    # d log Z / dk = ⟨Σ s s'⟩, and E = −k Σ s s'; the chains at the ladder's top are independent.
    slope = (log_z_of_torus(n, k + 1e-4) - log_z_of_torus(n, k - 1e-4)) / 2e-4
    energies = machine.energy(bridge.state).detach()
    mean, error = float(energies.mean()), float(energies.std()) / chains**0.5
    assert abs(mean + k * slope) < 4.5 * error
    assert error < 0.05 * k * n * n
    wrong = (log_z_of_torus(n, 0.7 * k) - log_z_of_torus(n, 0.7 * k - 1e-4)) / 1e-4
    assert abs(mean + k * wrong) > 4.5 * error


@pytest.mark.parametrize("k", [0.3, 0.6])
def test_every_estimate_and_the_energy_agree_with_the_closed_form(k):
    _check_all(8, k, chains=40, steps=200, temperatures=1000, within=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("k", [0.3, 0.5])
def test_every_estimate_and_the_energy_agree_on_a_large_torus(k):
    """Above and below the critical temperature."""
    _check_all(32, k, chains=40, steps=3000, temperatures=20_000, within=1.0)


def test_tempering_crosses_the_barrier_of_low_temperature():
    """Flips of the sign of the magnetisation, below the critical temperature (k = 0.4407)."""
    machine, flips = torus(8, 0.6), []
    for sampler in (Gibbs(), Tempering(_reference(machine))):
        generator = Generator().manual_seed(0)
        state = sampler.init(machine, torch.ones(20, 32), generator)
        kept = []
        run(sampler, machine, state, 100, generator,
            visit=lambda i, s, _, kept=kept: kept.append(torch.cat(s.layers, dim=1).sum(dim=1)))  # fmt: skip
        flips.append(int((torch.stack(kept).sign().diff(dim=0).abs() == 2).sum()))
    assert flips[0] <= 2
    assert flips[1] > 200
