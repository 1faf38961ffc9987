"""Bennett's ratio against a closed form, and ladders against enumeration."""

import math

import pytest
import torch
from evaluator_machines import MACHINES, rows, truth
from scipy.signal import lfilter
from torch import Generator

from gibbsian import evaluators, models
from gibbsian.errors import GibbsianError
from gibbsian.evaluators import bar, ladder_log_z, reverse_ais
from gibbsian.path import reference
from gibbsian.units import Spin

# Two normals: F_i(x) = γ_i (x − m_i)²/2, log Z_i = ½ log(2π/γ_i).
LOW, HIGH = (0.0, 1.0), (1.0, 4.0)
RATIO = -0.5 * math.log(4.0)


def _energy(x, machine):
    return machine[1] * (x - machine[0]) ** 2 / 2


def _normal(shape, machine, generator, memory: float = 0.0):
    """Draws of N(m, 1/γ), in chains of autocorrelation `memory` along the first axis."""
    z = torch.randn(shape, generator=generator).double()
    z[1:] *= math.sqrt(1 - memory**2)
    z = torch.from_numpy(lfilter([1.0], [1.0, -memory], z.numpy(), axis=0))
    return machine[0] + z / math.sqrt(machine[1])


def _inputs(shape0, shape1, seed, memory: float = 0.0):
    generator = Generator().manual_seed(seed)
    x0, x1 = _normal(shape0, LOW, generator, memory), _normal(shape1, HIGH, generator, memory)
    return _energy(x0, HIGH) - _energy(x0, LOW), _energy(x1, LOW) - _energy(x1, HIGH)


@pytest.mark.parametrize(
    ("shape0", "shape1", "memory"),
    [
        ((2000,), (2000,), 0.0),
        ((3000,), (300,), 0.0),
        ((100, 40), (100, 40), 0.9),
        ((1000, 4), (1000, 4), 0.9),
        ((4000,), (4000,), 0.9),
    ],
)
def test_bar_of_two_normals(shape0, shape1, memory):
    """Errors over 40 repetitions are normal scores: the mean is right, and so is the stated error."""
    found = [bar(*_inputs(shape0, shape1, seed, memory)) for seed in range(40)]
    scores = torch.tensor([(b.log_ratio - RATIO) / b.standard_error for b in found])
    assert abs(float(scores.mean())) < 4 * 1.3 / math.sqrt(40)
    assert 0.65 < float(scores.std()) < 1.5


def test_ends_that_are_mixed_up_are_found():
    w0, w1 = _inputs((2000,), (2000,), 0)
    right, wrong = bar(w0, w1), bar(w1, w0)
    assert abs(right.log_ratio - RATIO) < 5 * right.standard_error
    assert abs(wrong.log_ratio - RATIO) > 5 * wrong.standard_error
    forgets_numbers = bar(*_inputs((3000,), (300,), 0))
    assert abs(forgets_numbers.log_ratio - RATIO) < 5 * forgets_numbers.standard_error


def test_an_error_that_ignores_correlation_would_be_too_small():
    """Shuffled draws hide the memory of the chain from the blocks."""
    w0, w1 = _inputs((4000,), (4000,), 1, 0.95)
    mixed = torch.randperm(4000, generator=Generator().manual_seed(0))
    assert bar(w0[mixed], w1[mixed]).standard_error < 0.5 * bar(w0, w1).standard_error


def test_machines_without_overlap_have_a_solution():
    found = bar(torch.tensor([5000.0, 5001.0]), torch.tensor([3000.0, 3001.0]))
    assert found.log_ratio == pytest.approx(-1000, abs=2)
    assert found.standard_error > 1


def test_machines_that_are_the_same_have_none_to_bridge():
    assert bar(torch.zeros(5), torch.zeros(9)).log_ratio == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("w", [torch.zeros(1), torch.tensor([0.0, math.nan]), torch.zeros(2, 2, 2)])
def test_impossible_energies_are_refused(w):
    with pytest.raises(GibbsianError, match=r"at least two finite reduced energies.*\.$"):
        bar(w, torch.zeros(3))


# The ladder.

NAMES = [
    "bernoulli-bernoulli", "spin-bernoulli", "softmax-bernoulli", "binomial-spin",
    "gaussian-bernoulli", "mixed-bernoulli", "three layers",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_log_z_of_a_ladder_is_the_listed_one(name):
    machine = MACHINES[name]
    base = reference(machine, rows(machine, 100))
    found = ladder_log_z(machine, base, 60, [0, 0.3, 1.0], 60, generator=1, burn=15)
    assert abs(found.log_z - truth(name).log_z) < 4.5 * found.standard_error + 1e-4
    assert found.standard_error < 0.15
    assert found.doubt is None and found.round_trips > 60
    assert found.samples.shape == (60, machine.sizes[0])
    assert float(found.rungs.sum()) == pytest.approx(found.log_z - _log_z0(base), abs=1e-6)


def _log_z0(base) -> float:
    return evaluators.log_z(base)


def test_the_stated_error_is_that_of_repetitions():
    name = "bernoulli-bernoulli"
    machine = MACHINES[name]
    base = reference(machine, rows(machine, 100))
    found = [ladder_log_z(machine, base, 30, [0, 0.5, 1.0], 30, s, burn=8) for s in range(14)]
    scores = torch.tensor([(f.log_z - truth(name).log_z) / f.standard_error for f in found])
    assert abs(float(scores.mean())) < 4 / math.sqrt(14)
    assert 0.5 < float(scores.std()) < 1.8


def test_a_ladder_goes_on_until_its_chains_made_their_round_trips():
    """What was made serves: steps that were doubled twice are those of the long ladder, draw by draw."""
    machine = MACHINES["bernoulli-bernoulli"]
    base = reference(machine, rows(machine, 100))
    options = {"chains": 6, "levels": [0, 0.3, 1.0], "generator": 0}
    seen: list[float] = []
    long = ladder_log_z(machine, base, steps=32, **options)
    doubled = ladder_log_z(machine, base, steps=8, round_trips=1e6, progress=seen.append, **options)
    assert doubled.steps == 32 and doubled.log_z == long.log_z and doubled.low == long.low
    assert doubled.round_trips == long.round_trips
    assert torch.equal(doubled.acceptance, long.acceptance)
    assert seen.count(1.0) == 3
    enough = long.round_trips / 6
    assert ladder_log_z(machine, base, steps=32, round_trips=enough, **options).steps == 32
    capped = ladder_log_z(machine, base, steps=8, round_trips=1e6, longest=16, **options)
    assert capped.steps == 16


def test_reverse_ais_starts_from_the_top_level():
    """Two valleys: chains from the lighter one alone would give a wrong answer."""
    machine = models.rbm(Spin(8), Spin(6))
    with torch.no_grad():
        machine.joints[0].weight.fill_(0.9)
        machine.layers[0].bias.fill_(0.1)
    x = rows(machine, 200)
    base = reference(machine, torch.cat([x, -x]))  # of mean 0: no valley is favoured
    exact = evaluators.log_z(machine)
    found = ladder_log_z(machine, base, 100, None, 200, generator=0)
    assert abs(found.log_z - exact) < 4.5 * found.standard_error
    assert found.doubt is None
    back = reverse_ais(machine, base, found.state, 200, generator=1)
    assert back.log_z == pytest.approx(exact, abs=5 * back.standard_error + 0.02)
    stuck = reverse_ais(machine, base, -torch.ones(100, 8), 200, generator=1)
    assert abs(stuck.log_z - exact) > 0.5


def test_a_ladder_with_too_few_levels_is_doubted():
    machine = models.rbm(Spin(20), Spin(20))
    with torch.no_grad():
        machine.joints[0].weight.fill_(1.0)
    base = reference(machine, rows(machine, 100))
    found = ladder_log_z(machine, base, 10, [0, 1], 20, generator=0)
    assert "give more levels" in found.doubt
    assert found.as_dict()["doubt"] == found.doubt


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chains": 0}, "number of chains"),
        ({"steps": 1}, "number of steps"),
        ({"burn": -1}, "burn-in"),
        ({"levels": [0, 2]}, "rise from"),
    ],
)
def test_impossible_ladders_are_refused(options, words):
    machine = MACHINES["bernoulli-bernoulli"]
    base = reference(machine, rows(machine, 10))
    with pytest.raises(GibbsianError, match=words) as caught:
        ladder_log_z(machine, base, **options)
    assert str(caught.value).endswith(".")
