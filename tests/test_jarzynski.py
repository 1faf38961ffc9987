"""Jarzynski's weights: gradients and log Z of chains that lag behind, against enumeration."""

import math

import pytest
import torch
from test_estimators import MACHINES, _exact, _gradients, _rows, _worst_score
from test_resume import Stop, StopAt, assert_equal_runs, train
from torch import Generator

import gibbsian as gb
from gibbsian.errors import TrainingError
from gibbsian.estimators import PCD, Jarzynski, Phases, from_spec
from gibbsian.estimators.jarzynski import effective, log_mean_exp, resampled
from gibbsian.evaluators import log_z
from gibbsian.machine import BoltzmannMachine
from gibbsian.precision import lowered
from gibbsian.samplers import ChainState


@pytest.mark.parametrize("name", ["spin-binomial", "mixed-gaussian"])
def test_at_fixed_parameters_it_has_the_exact_gradient(name):
    machine = MACHINES[name]()
    x = _rows(machine)
    found = _gradients(machine, Jarzynski(steps=2, chains=20, witnesses=0), x, updates=2, burn=3)
    assert _worst_score(found, _exact(machine, x)) < 5


@pytest.mark.parametrize("name", MACHINES)
def test_the_first_bridge_reaches_the_machine(name):
    """log Z from W = 0 to couplings that are anything but small."""
    machine, method = MACHINES[name](), Jarzynski(chains=1, witnesses=2000)
    errors = []
    for seed in range(3):
        chains = method.init(machine, _rows(machine), Generator().manual_seed(seed))
        assert chains.extra["log_weights"].dtype == torch.float64
        errors.append(method.log_z(chains) - _truth(machine))
    assert abs(sum(errors) / 3) < 0.05, errors


def _truth(machine: BoltzmannMachine) -> float:
    from gibbsian import testing

    table = testing.enumerate_states(machine)
    with torch.no_grad():
        return float((table.log_weights - machine.energy(table.states)).logsumexp(dim=0))


# Machines that move faster than their chains.


def _slow(seed: int = 0) -> BoltzmannMachine:
    """A machine with a few deep modes, which Gibbs steps leave seldom."""
    machine = gb.rbm(6, 4).double()
    with torch.no_grad():
        w = torch.randn(6, 4, generator=Generator().manual_seed(seed)).sign().double()
        machine.joints[0].weight.copy_(3 * w)
        machine.layers[0].bias.copy_(-1.5 * w.sum(dim=1))
        machine.layers[1].bias.copy_(-1.5 * w.sum(dim=0))
    return machine


def _shift(machine: BoltzmannMachine, size: float) -> None:
    """Move the visible biases, and with them the weights of the modes."""
    with torch.no_grad():
        machine.layers[0].bias.add_(size)


def _means(method, seeds: int = 10) -> list[dict]:
    """Gradients right after five moves of the parameters, with one Gibbs step each."""
    out = []
    for seed in range(seeds):
        machine, generator = _slow(), Generator().manual_seed(seed)
        x = torch.ones(5, 6).double()
        chains = method.init(machine, x, generator)
        if isinstance(method, PCD):  # at equilibrium, as the weighted chains are
            for _ in range(60):
                chains, _ = gb.Gibbs().step(machine, chains, generator)
        for _ in range(5):
            _shift(machine, 0.3)
            phases = method.step(machine, x, chains, generator)
            chains = phases.chains
        g = phases.gradient(machine, machine.learned())
        out.append({k: g[k] for k in machine.learned()})
    return out


def test_weights_make_up_for_the_lag():
    machine = _slow()
    _shift(machine, 1.5)
    exact = _exact(machine, torch.ones(5, 6).double())
    assert _worst_score(_means(Jarzynski(chains=1000, witnesses=0)), exact) < 5
    assert _worst_score(_means(PCD(chains=1000)), exact) > 20  # without weights
    assert _worst_score(_means(WrongSign(chains=1000, witnesses=0)), exact) > 20


class WrongSign(Jarzynski):
    """F of the new parameters minus that of the old."""

    def _follow(self, machine, chains, generator):
        extra = dict(chains.extra)
        change = extra["energy"] - machine.marginal_energy(chains.layers)
        extra["log_weights"] = extra["log_weights"] - 2 * change
        return super()._follow(machine, ChainState(chains.layers, extra), generator)


class Forgets(Jarzynski):
    """log Z as plain PCD would have it: each move's weights are begun anew, none is resampled."""

    def _follow(self, machine, chains, generator):
        weights, extra = chains.extra["log_weights"], dict(chains.extra)
        extra["log_z"] = extra["log_z"] + log_mean_exp(weights[self.chains :])
        extra["log_weights"] = torch.zeros_like(weights)
        return super()._follow(machine, ChainState(chains.layers, extra), generator)


def _rows_of_bars() -> torch.Tensor:
    """Rows of 3×3 bars and stripes, and the two plain ones more often."""
    bits = torch.tensor([[a, b, c] for a in (0.0, 1.0) for b in (0.0, 1.0) for c in (0.0, 1.0)])
    bars = bits.repeat_interleave(3, dim=1)
    stripes = bits.repeat(1, 3)
    return torch.cat([bars, stripes]).double()


def _errors(method: Jarzynski, seeds: int = 4, updates: int = 250) -> torch.Tensor:
    """Errors of log Z after plain gradient ascent at a fast rate, one a seed."""
    errors, x = [], _rows_of_bars()
    for seed in range(seeds):
        generator, machine = Generator().manual_seed(seed), gb.rbm(9, 6).double()
        with torch.no_grad():
            machine.joints[0].weight.normal_(0, 0.01, generator=generator)
        chains = method.init(machine, x, generator)
        for _ in range(updates):
            phases = method.step(machine, x, chains, generator)
            chains = phases.chains
            g = phases.gradient(machine, machine.learned())
            with torch.no_grad():
                for k, p in machine.learned().items():
                    p.sub_(0.5 * g[k])
        errors.append(method.log_z(chains, machine) - log_z(machine))
    return torch.tensor(errors)


class Own(Jarzynski):
    """log Z from the chains that the parameters were moved against."""

    def log_z(self, chains, machine=None):
        swapped = {k: t.flip(0) for k, t in chains.extra.items() if k != "log_z"}
        layers = tuple(t.flip(0) for t in chains.layers)
        extra = swapped | {"log_z": chains.extra["log_z"]}
        return super().log_z(ChainState(layers, extra), machine)


def test_log_z_along_training():
    """Within four standard errors over seeds (and their lognormal bias, −variance/2)."""
    found = _errors(Jarzynski(chains=100, witnesses=300))
    spread = float(found.std())
    assert spread < 0.3
    assert abs(float(found.mean())) < 4 * spread / math.sqrt(len(found)) + spread**2 / 2
    plain = _errors(Forgets(chains=100, witnesses=300), seeds=2)
    assert float(plain.square().mean()) > 20 * float(found.square().mean())
    wrong = _errors(WrongSign(chains=100, witnesses=300), seeds=1, updates=100)
    assert float(wrong.abs().min()) > 10 * spread


def test_the_chains_of_the_gradient_could_not_tell_log_z():
    """With every weight kept (no resampling) their log Z is too low by much more than its error."""
    options = {"chains": 100, "witnesses": 100, "threshold": 0.0}
    found = _errors(Own(**options), seeds=2, updates=50)
    assert float(found.max()) < -0.5


def test_log_z_without_the_machine_is_that_of_the_last_step(generator):
    machine, method = _slow(), Jarzynski(chains=2, witnesses=50)
    chains = method.init(machine, torch.ones(2, 6).double(), generator)
    assert method.log_z(chains) == pytest.approx(method.log_z(chains, machine), abs=1e-9)
    _shift(machine, 0.1)
    assert abs(method.log_z(chains) - method.log_z(chains, machine)) > 1e-3
    assert all(0 < s <= 1 for s in method.shares(chains))


# Its parts.


def test_effective_number_and_resampling(generator):
    assert effective(torch.zeros(8).double()) == pytest.approx(8)
    assert effective(torch.tensor([1000.0, 0, 0]).double()) == pytest.approx(1)
    w = torch.tensor([0.1, 0.0, 0.55, 0.35]).double()
    counts = torch.stack(
        [torch.bincount(resampled(w.log(), generator), minlength=4) for _ in range(4000)]
    ).double()
    assert float((counts - 4 * w).abs().max()) < 1
    torch.testing.assert_close(counts.mean(dim=0), 4 * w, rtol=0, atol=4 * 0.5 / math.sqrt(4000))


def test_resampling_at_every_move_changes_no_expectation():
    machine = _slow()
    _shift(machine, 1.5)
    exact = _exact(machine, torch.ones(5, 6).double())
    found = _means(Jarzynski(chains=1000, witnesses=0, threshold=1.0))
    assert _worst_score(found, exact) < 5


def test_lowered_products_are_not_used(generator):
    machine = gb.rbm(6, 4)
    with torch.no_grad():
        machine.joints[0].weight.normal_(generator=generator)
    method, x = Jarzynski(chains=7), torch.ones(3, 6)
    found: list[Phases] = []
    for walker in (machine, lowered(machine)):
        source = Generator().manual_seed(1)
        chains = method.init(walker, x, source)
        found.append(method.step(walker, x, chains, source))
    a, b = (p.chains for p in found)
    assert all(torch.equal(s, t) for s, t in zip(a.layers, b.layers, strict=True))
    assert all(torch.equal(a.extra[k], b.extra[k]) for k in a.extra)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "number of steps of Jarzynski"),
        ({"chains": 0}, "number of chains"),
        ({"witnesses": -1}, "number of witnesses"),
        ({"threshold": 1.5}, r"\[0, 1\]"),
        ({"threshold": float("nan")}, "finite number"),
    ],
)
def test_impossible_settings(settings, says):
    with pytest.raises(TrainingError, match=says):
        Jarzynski(**settings)


def test_specification_round_trip(generator):
    method = Jarzynski(steps=2, chains=5, witnesses=3, threshold=0.5)
    again = from_spec(method.config)
    assert isinstance(again, Jarzynski) and again.config == method.config
    with pytest.raises(TrainingError, match="does not take"):
        from_spec({"kind": "jarzynski", "start": "noise"})
    with pytest.raises(TrainingError, match="call init first"):
        method.step(gb.rbm(3, 2), torch.ones(2, 3), None, generator)


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    options = {"method": Jarzynski(chains=9, witnesses=7, threshold=0.9)}
    train(tmp_path / "whole", **options)
    with pytest.raises(Stop):
        train(tmp_path / "cut", callbacks=[StopAt(31)], **options)
    gb.resume(tmp_path / "cut", progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_the_digits():
    data = gb.data.load("digits", transform="threshold")
    options = {"updates": 300, "log_every": 150, "average": 0.9, "progress": False}
    result = gb.train(gb.rbm(64, 16), data, Jarzynski(), lr=0.2, **options)
    values = [r["pseudo_likelihood"]["validation"] for r in result.history]
    assert values[-1] > values[0] + 0.5
