"""Training with exchange along a trajectory: its log Z, its exchange, its returns."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

import gibbsian as gb
from gibbsian import models, testing
from gibbsian.bennett import log_ratio
from gibbsian.callbacks import Callback
from gibbsian.errors import GibbsianError, TrainingError
from gibbsian.estimators import PTT, from_spec
from gibbsian.estimators.ptt import _CHECKPOINTS, _HALVINGS, _REJECTIONS, _Walk
from gibbsian.estimators.waiting import Clock
from gibbsian.training import Trainer

_ROWS = 200


def test_bennetts_ratio_of_two_normals_is_known():
    """Machines −log densities of N(0, 1) and N(1, ½²), unnormalised: log Z_1 − log Z_0 = log ½."""
    generator = Generator().manual_seed(0)
    found = []
    for _ in range(40):
        x0 = torch.randn(2000, generator=generator).double()
        x1 = 1 + 0.5 * torch.randn(500, generator=generator).double()
        w0, w1 = (2 * (x - 1) ** 2 - x**2 / 2 for x in (x0, x1))
        found.append(log_ratio(w0, -w1))
    t = torch.tensor(found)
    error = float(t.std()) / len(t) ** 0.5
    assert abs(float(t.mean()) - torch.tensor(0.5).log()) < 4 * error
    assert error < 0.01


def test_bennetts_ratio_of_far_machines_is_finite():
    w = torch.full((5,), 400.0)
    assert abs(log_ratio(w, -w) + 400) < 1e-6


class Keep(Callback):
    """Keeps every checkpoint's parameters with the log Z they were given."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[dict[str, torch.Tensor], float]] = {}

    def on_update(self, trainer: Trainer) -> None:
        extra = trainer.chains.extra
        theta = {k.removeprefix("theta."): t for k, t in extra.items() if k.startswith("theta.")}
        self.found[int(extra["counts"][1])] = theta, float(extra["log_z"])


def _rows(seed: int = 0) -> torch.Tensor:
    """Two opposite patterns with a little noise."""
    generator = Generator().manual_seed(seed)
    pattern = torch.tensor([1.0, 1, 1, 0, 0, 0, 1, 0])
    which = (torch.rand(_ROWS, 1, generator=generator) < 0.5).float()
    flips = (torch.rand(_ROWS, 8, generator=generator) < 0.05).float()
    return ((which * pattern + (1 - which) * (1 - pattern)) - flips).abs()


MACHINES = {
    "bernoulli": (lambda: gb.rbm(8, 4), lambda x: x),
    "spin": (lambda: gb.rbm(gb.units.Spin(8), gb.units.Spin(3)), lambda x: 2 * x - 1),
    "deep": (lambda: gb.layered(*(gb.units.Bernoulli(n) for n in (8, 4, 3))), lambda x: x),
}


@pytest.mark.parametrize("name", MACHINES)
def test_log_z_along_the_trajectory_is_exact(name):
    make, code = MACHINES[name]
    keep = Keep()
    data = gb.data.load(code(_rows()), transform="identity", validation=0, test=0)
    method = PTT(steps=2, chains=200, acceptance=0.7)
    gb.train(make(), data, method, updates=300, batch_size=50, lr=0.1, schedule="constant",
             progress=False, callbacks=[keep])  # fmt: skip
    assert len(keep.found) >= 4, "there was no checkpoint to look at"
    machine = make()
    for theta, log_z in keep.found.values():
        with torch.no_grad():
            for k, p in machine.named_parameters():
                p.copy_(theta[k])
        exact = float(testing.enumerate_states(machine).log_z)
        # Each of the few ratios has an error of about 0.02 with 2,000 samples a side.
        assert abs(log_z - exact) < 0.15, (log_z, exact)


class Backwards(_Walk):
    """Accepts by the wrong sign."""

    def swap(self):
        self.delta = -self.delta
        return super().swap()


@torch.no_grad()
@pytest.mark.parametrize("walk", [_Walk, Backwards])
def test_exchange_leaves_both_laws_as_they_are(walk):
    """Exact samples of two machines, exchanged ten times with new partners, are still that."""
    machine, frozen = (
        testing.perturbed(models.rbm(4, 3), s, seed=i) for i, s in ((1, 1.5), (2, 0.8))
    )
    tables = [testing.enumerate_states(m) for m in (machine, frozen)]
    generator = Generator().manual_seed(3)
    n = 20_000
    picks = [torch.multinomial(t.probabilities, n, True, generator=generator) for t in tables]
    mine, theirs = ([s[i] for s in t.states] for t, i in zip(tables, picks, strict=True))
    extra = {"reservoir.0": theirs[0].clone(), "reservoir.energy": frozen.marginal_energy(theirs)}
    w = walk(PTT(), machine, frozen, list(mine), extra, generator)
    accepted = 0.0
    for _ in range(10):
        w.meet()
        accepted += float(w.swap().double().mean()) / 10
    assert 0.1 < accepted < 0.95
    worst = 0.0
    for table, visible in zip(tables, (w.layers[0], extra["reservoir.0"]), strict=True):
        mean = table.probabilities @ table.states[0]
        pairs = torch.einsum("r,ri,rj->ij", table.probabilities, *[table.states[0]] * 2)
        found = visible.T @ visible / n
        error = (pairs * (1 - pairs) / n).sqrt() + 1e-9
        assert mean.shape == (4,)
        worst = max(worst, float(((found - pairs) / error).abs().max()))
    assert (worst < 4.5) == (walk is _Walk), worst


def test_a_machine_that_strays_goes_back_with_half_the_rate():
    data = gb.data.load(_rows(), transform="identity", validation=0, test=0)
    keep = Keep()
    settings = gb.Settings(updates=60, batch_size=50, lr=30.0, schedule="constant")
    trainer = Trainer(gb.rbm(8, 4), data, PTT(), settings, callbacks=[keep])
    trainer.fit()
    counts = trainer.chains.extra["counts"]
    assert int(counts[_REJECTIONS]) > 0 and int(counts[_HALVINGS]) > 0
    assert all(bool(torch.isfinite(p).all()) for p in trainer.machine.parameters())
    assert trainer.optimizer.param_groups[0]["lr"] == 30.0, "the halving is no part of the schedule"


def test_a_run_resumes_exactly(tmp_path):
    np.save(tmp_path / "rows.npy", _rows().numpy().astype("uint8"))
    data = gb.data.load(tmp_path / "rows.npy", transform="identity")
    options = {"batch_size": 50, "lr": 0.1, "checkpoint_every": 40, "progress": False}
    whole = gb.train(gb.rbm(8, 4), data, PTT(), out=tmp_path / "a", updates=120, **options)
    gb.train(gb.rbm(8, 4), data, PTT(), out=tmp_path / "b", updates=120, **options)
    again = gb.resume(tmp_path / "b", checkpoint="40")
    for a, b in zip(whole.last.parameters(), again.last.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"chains": 0}, {"reservoir": 0}, {"acceptance": 1.5}],
                         ids=str)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(TrainingError):
        PTT(**settings)


def test_it_comes_back_from_its_configuration():
    method = PTT(steps=3, chains=7, reservoir=2, acceptance=0.4)
    again = from_spec(method.config)
    assert again.config == method.config


def test_rounded_products_are_refused():
    with pytest.raises(GibbsianError, match="fp32"):
        gb.train(gb.rbm(8, 4), _rows(), PTT(), updates=2, precision="bf16", progress=False)


def test_times_of_a_known_exchange_are_those_of_both_readings():
    """Swaps accepted with A = 0.3 each: τ_int = ½ + 0.7/0.3 by survival, ½ + 0.4/0.6 by flipping signs."""
    generator, clock = Generator().manual_seed(0), Clock()
    for _ in range(400):
        clock.tick(0.3, torch.rand(2000, generator=generator) < 0.3)
    assert clock.times()[0] == pytest.approx(0.5 + 0.7 / 0.3, abs=0.1)
    assert clock.flips()[0] == pytest.approx(0.5 + 0.4 / 0.6, abs=0.02)
    # C(t) = 0.4^t is above 0.05 for t ≤ 3; S(t) = 0.7^t for t ≤ 8.
    assert clock.times()[1] == pytest.approx(-1 / math.log(0.7), rel=0.1)
    assert clock.flips()[1] == pytest.approx(-1 / math.log(0.4), rel=0.05)


def test_signs_read_too_short_where_most_swaps_are_accepted():
    generator, clock = Generator().manual_seed(0), Clock()
    for _ in range(200):
        clock.tick(0.8, torch.rand(1000, generator=generator) < 0.8)
    assert clock.flips()[0] < 0.5 < clock.times()[0]


def test_chains_that_never_swap_have_no_end_of_waiting():
    clock = Clock()
    for _ in range(30):
        clock.tick(0.0, torch.zeros(10, dtype=torch.bool))
    assert clock.times()[1] == 30


def test_energies_of_the_reservoir_are_kept_right():
    """What is remembered under the checkpoint is what would be computed anew, after swaps and checkpoints."""
    found = []

    class Look(Callback):
        def on_update(self, trainer):
            extra, frozen = trainer.chains.extra, gb.rbm(8, 4)
            with torch.no_grad():
                for k, p in frozen.named_parameters():
                    p.copy_(extra[f"theta.{k}"])
                for name in ("reservoir", "clean"):
                    energy = frozen.marginal_energy((extra[f"{name}.0"],))
                    found.append(float((energy - extra[f"{name}.energy"]).abs().max()))
                now = trainer.chains.layers[0]
            assert now.shape == (40, 8)

    data = gb.data.load(_rows(), transform="identity", validation=0, test=0)
    settings = gb.Settings(updates=80, batch_size=50, lr=0.3, schedule="constant")
    trainer = Trainer(gb.rbm(8, 4), data, PTT(2, 40, acceptance=0.6), settings, callbacks=[Look()])
    trainer.fit()
    assert int(trainer.chains.extra["counts"][_CHECKPOINTS]) > 2
    assert max(found) < 1e-4
    told = trainer.method.report(trainer.machine, trainer.chains)
    assert told["tau"] > 0.5 and told["tau_flips"] > 0


def test_after_a_return_everything_is_the_checkpoints():
    """Average and offsets begin anew, and the chains' energies are of the machine they are at."""
    found = []

    class Look(Callback):
        def on_update(self, trainer):
            extra = trainer.chains.extra
            if int(extra["counts"][_REJECTIONS]) > len(found):
                frozen = gb.rbm(8, 4)
                with torch.no_grad():
                    for k, p in frozen.named_parameters():
                        p.copy_(extra[f"theta.{k}"])
                    energy = frozen.marginal_energy(trainer.chains.layers)
                    hidden = torch.sigmoid(trainer.monitored["train"] @ frozen.joints[0].weight
                                           + frozen.layers[1].bias).mean(dim=0)  # fmt: skip
                assert torch.allclose(energy, extra["energy"], atol=1e-4)
                # One batch of 100 rows against all; then one step of the running mean.
                assert float((trainer.offsets[1] - hidden).abs().max()) < 0.15
                step = [(a - p).abs().max() for a, p in zip(
                    trainer.averaged.parameters(), frozen.parameters(), strict=True)]  # fmt: skip
                moved = [(a - p).abs().max() for a, p in zip(
                    trainer.machine.parameters(), frozen.parameters(), strict=True)]  # fmt: skip
                assert all(a <= b for a, b in zip(step, moved, strict=True))
                found.append(trainer.step)

    data = gb.data.load(_rows(), transform="identity", validation=0, test=0)
    settings = gb.Settings(updates=60, batch_size=100, lr=30.0, schedule="constant")
    Trainer(gb.rbm(8, 4), data, PTT(), settings, callbacks=[Look()]).fit()
    assert found
