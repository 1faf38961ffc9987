"""Whitening: a positive definite preconditioner that follows the principal directions of the states."""

import pytest
import torch

import gibbsian as gb
from gibbsian.errors import TrainingError
from gibbsian.moments import Moments, Rows
from gibbsian.training import Trainer
from gibbsian.whitening import RANK, Whitening

NAME = "connections.0.weight"
LIMIT = 0.3


def _rows(machine: gb.BoltzmannMachine, n: int, seed: int) -> Rows:
    """Rows whose visible half varies along two known directions with variances 4 and 1, else 0.01."""
    draw = torch.Generator().manual_seed(seed)
    a = 0.1 * torch.randn(n, machine.sizes[0], generator=draw)
    a[:, 0] = 2 * torch.randn(n, generator=draw)
    a[:, 1] = torch.randn(n, generator=draw)
    b = 0.1 * torch.randn(n, machine.sizes[1], generator=draw)
    return Rows(machine.joints[0], a, b, torch.cat([torch.full((n // 2,), -2 / n)] * 2))


def _looked(machine: gb.BoltzmannMachine, looks: int = 30) -> Whitening:
    whitening = Whitening(machine, LIMIT)
    for i in range(looks):
        whitening.precondition(Moments({NAME: _rows(machine, 200, i)}), 0)
    return whitening


def test_directions_and_variances_are_those_of_the_states():
    machine = gb.rbm(12, 5)
    whitening = _looked(machine)
    variances, basis = whitening.variances[0].flip(0), whitening.bases[0].flip(1)
    # Ten looks' memory of 200 rows each: a relative error of sqrt(2/2000) ≈ 3 %, times 4.
    assert variances[:3].tolist() == pytest.approx([4, 1, 0.01], rel=0.3)
    assert float(basis[0, 0].abs()) > 0.99 and float(basis[1, 1].abs()) > 0.99
    torch.testing.assert_close(basis.T @ basis, torch.eye(12), atol=1e-4, rtol=0)


def test_the_slowed_directions_vary_as_much_as_the_limit_says():
    machine = gb.rbm(12, 5)
    whitening = _looked(machine)
    rows = _rows(machine, 4000, 99)
    slowed = whitening.precondition(Moments({NAME: rows}), 3).rows(NAME)
    assert slowed is not None
    # P x has variance limit²/λ along a direction of variance λ; P alone has limit/λ.
    assert float(slowed.a[:, 0].var()) == pytest.approx(LIMIT**2 / 4, rel=0.3)
    assert float(slowed.a[:, 1].var()) == pytest.approx(LIMIT**2 / 1, rel=0.3)
    torch.testing.assert_close(slowed.b, rows.b)  # nothing there varies more than the limit


def test_rows_and_tensors_are_preconditioned_alike():
    machine = gb.rbm(12, 5)
    whitening = _looked(machine)
    rows = _rows(machine, 200, 7)
    kept = whitening.precondition(Moments({NAME: rows}), 3)[NAME]
    formed = whitening.precondition(Moments({NAME: rows.total()}), 3)[NAME]
    torch.testing.assert_close(kept, formed, atol=1e-6, rtol=1e-4)
    # A descent direction: P is positive definite, and not the identity.
    assert 0 < float((kept * rows.total()).sum()) < float(rows.total().square().sum())


def test_wide_layers_keep_as_many_directions_as_are_followed():
    machine = gb.rbm(RANK + 40, 5)
    whitening = Whitening(machine, LIMIT)
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(200, RANK + 40, generator=draw), torch.randn(200, 5, generator=draw)
    rows = Rows(machine.joints[0], a, b, torch.full((200,), 0.005))
    whitening.precondition(Moments({NAME: rows}), 0)
    assert whitening.bases[0].shape == (RANK + 40, RANK)
    truth = torch.linalg.svdvals(a).square()[:RANK] / 200
    torch.testing.assert_close(whitening.variances[0].flip(0), truth, atol=1e-4, rtol=1e-3)


def test_no_step_is_lost():
    """P is symmetric with eigenvalues in (0, 1], so a gradient of zero is the only one it maps to zero."""
    machine = gb.rbm(12, 5)
    p = _looked(machine)._slow(0, torch.eye(12))
    torch.testing.assert_close(p, p.T, atol=1e-6, rtol=0)
    values = torch.linalg.eigvalsh(p.double())
    assert float(values[0]) == pytest.approx(LIMIT / 4, rel=0.3)
    assert float(values[-1]) == pytest.approx(1, abs=1e-4)


def test_training_learns_what_slow_directions_hold():
    """A strong common direction bounds the plain rate; whitened, a larger one learns the rest sooner."""
    draw = torch.Generator().manual_seed(2)
    x = (torch.rand(500, 40, generator=draw) < 0.5).float()
    x[:, 1:20] = x[:, :1]  # one direction of variance 5
    flip = (torch.rand(500, 40, generator=draw) < 0.02).float()
    x = (x - flip).abs()
    for j in range(20, 40, 2):  # and weak pairs
        x[:, j + 1] = torch.where(torch.rand(500, generator=draw) < 0.8, x[:, j], x[:, j + 1])
    data = gb.data.load(x, test=0, validation=0)
    found = {}
    for whiten in (0.0, 0.3):
        settings = gb.Settings(updates=1000, batch_size=50, lr=0.4, whiten=whiten)
        trainer = Trainer(gb.rbm(40, 14), data, gb.PCD(chains=50), settings)
        trainer.fit()
        with torch.no_grad():
            energy = float(trainer.averaged.free_energy(x).mean())
            found[whiten] = -energy - float(gb.evaluators.log_z(trainer.averaged))
    print(found)
    assert found[0.3] > found[0.0]


def test_whitening_needs_centred_coordinates_and_a_positive_number():
    with pytest.raises(TrainingError, match="centred coordinates"):
        gb.Settings(whiten=0.5, center=False)
    with pytest.raises(TrainingError, match="whiten must be"):
        gb.Settings(whiten=-1.0)
