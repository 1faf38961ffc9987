import sys

import pytest
import torch
from evaluator_machines import MACHINES, rows

from gibbsian.errors import DataError, GibbsianError
from gibbsian.evaluators import (
    free_energies,
    free_energy_gap,
    reconstruction,
    reconstruction_error,
)


def test_bits_by_hand():
    machine = MACHINES["bernoulli-bernoulli"]
    x = torch.rand(7, 6, generator=torch.Generator().manual_seed(0))  # rates are allowed here
    with torch.no_grad():
        w = machine.joints[0].weight
        h = torch.sigmoid(x @ w + machine.layers[1].bias)
        p = torch.sigmoid(h @ w.T + machine.layers[0].bias)
        squared = ((x - p) ** 2).mean()
        nats = -(x * p.log() + (1 - x) * (1 - p).log()).sum(dim=1).mean()
    found = reconstruction(machine, x)
    assert found.squared_error == pytest.approx(float(squared), rel=1e-5)
    assert found.squared_error_sum == pytest.approx(6 * float(squared), rel=1e-5)
    assert found.cross_entropy == pytest.approx(float(nats), rel=1e-5)
    assert reconstruction_error(machine, x) == found.squared_error


def test_real_columns_by_hand():
    machine = MACHINES["gaussian-bernoulli"]
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        w, precision = machine.joints[0].weight, machine.layers[0].log_precision.exp()
        h = torch.sigmoid(x @ w + machine.layers[1].bias)
        mean = (h @ w.T + machine.layers[0].bias) / precision
        nats = -torch.distributions.Normal(mean, precision**-0.5).log_prob(x).sum(dim=1).mean()
    found = reconstruction(machine, x)
    assert found.squared_error == pytest.approx(float(((x - mean) ** 2).mean()), rel=1e-5)
    assert found.cross_entropy == pytest.approx(float(nats), rel=1e-5)


@pytest.mark.parametrize("name", MACHINES)
def test_any_units_and_any_chunk(name, monkeypatch):
    machine = MACHINES[name]
    x = rows(machine, 11)
    whole = reconstruction(machine, x)
    assert whole.squared_error_sum == pytest.approx(whole.squared_error * machine.sizes[0])
    monkeypatch.setattr(sys.modules["gibbsian.evaluators.reconstruction"], "_CHUNK_ELEMENTS", 20)
    parts = reconstruction(machine, x)
    # Mean field ends when the rows that it is given together hardly move.
    near = 1e-5 if len(machine.layers) == 2 else 1e-3
    assert parts.squared_error == pytest.approx(whole.squared_error, rel=near)
    assert parts.cross_entropy == pytest.approx(whole.cross_entropy, rel=near)


def test_a_sampled_hidden_layer_is_another_figure():
    machine = MACHINES["bernoulli-bernoulli"]
    x = rows(machine, 400)
    mean = reconstruction(machine, x)
    sampled = [reconstruction(machine, x, "sample", generator=s) for s in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert sampled[0].squared_error != mean.squared_error
    with pytest.raises(GibbsianError, match="'mean' or by 'sample'"):
        reconstruction(machine, x, "both")


def test_free_energy_gap_is_validation_minus_train():
    machine = MACHINES["bernoulli-bernoulli"]
    train, validation = rows(machine, 5, seed=1), rows(machine, 9, seed=2)
    expected = free_energies(machine, validation).mean() - free_energies(machine, train).mean()
    assert free_energy_gap(machine, train, validation) == pytest.approx(float(expected))
    assert free_energy_gap(machine, train, train) == 0
    with pytest.raises(DataError, match="validation rows"):
        free_energy_gap(machine, train, torch.full((2, 6), 3.0)[:0])
