"""Rates-FPCD: its update by hand, block Gibbs at rate 0, and how far it perturbs a distribution."""

import pytest
import torch
from test_machine import pair, small_machine
from torch import Generator

import gibbsian as gb
from gibbsian import testing
from gibbsian.errors import DataError, GibbsianError
from gibbsian.samplers import ChainState, Gibbs, RatesFPCD, run
from gibbsian.units import Bernoulli, Spin
from gibbsian.units import base as unit

MACHINES = {
    "bernoulli": lambda: pair("bernoulli", "bernoulli"),
    "gaussian-relu": lambda: pair("gaussian", "relu"),
    "softmax-spin": lambda: pair("softmax", "spin"),
    "mixed-binomial": lambda: pair("mixed", "binomial"),
    "deep": lambda: small_machine(Bernoulli(3), Spin(2), Bernoulli(2), seed=2),
}


def _rows(machine: gb.BoltzmannMachine, n: int = 40) -> torch.Tensor:
    like = next(machine.parameters())
    return machine.layers[0].domain.noise(n, Generator().manual_seed(7)).to(like)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", MACHINES)
def test_contract_and_gibbs_at_rate_zero(name, shared):
    machine = MACHINES[name]()
    testing.check_contract(RatesFPCD(_rows(machine), 0.1, shared=shared), machine)
    sampler = RatesFPCD(_rows(machine), 0.0, shared=shared)
    testing.check_distribution(sampler, machine, chains=2000, steps=12)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", MACHINES)
def test_sampled_statistics_keep_the_contract_and_are_gibbs_at_rate_zero(name, shared):
    machine = MACHINES[name]()
    how = {"shared": shared, "statistics": "sampled"}
    testing.check_contract(RatesFPCD(_rows(machine), 0.1, **how), machine)
    if name in ("bernoulli", "deep"):
        sampler = RatesFPCD(_rows(machine), 0.0, **how)
        testing.check_distribution(sampler, machine, chains=2000, steps=12)


class Still(RatesFPCD):
    """Draws the same row of the data over and over."""

    def _rows(self, machine, generator, count=None):
        rows = super()._rows(machine, generator)
        return rows if count is None else rows[:1].expand(count, -1)


@pytest.mark.parametrize("kind", [RatesFPCD, Still])
@pytest.mark.parametrize("name", ["bernoulli", "softmax-spin", "deep"])
def test_sampled_statistics_are_the_rates_in_the_mean(name, kind, generator):
    """Of 20,000 draws, within four standard errors and what ten sweeps leave of a deep machine."""
    machine = MACHINES[name]()
    rows, visible = _rows(machine, 400), _rows(machine, 20_000)
    rates = RatesFPCD(rows).init(machine, visible[:1], generator).extra
    sampler = kind(rows, statistics="sampled")
    assert not [k for k in sampler.init(machine, visible[:1], generator).extra if "rates" in k]
    worst = 0.0
    for k, t in sampler._wanted(machine, {}, 20_000, generator).items():
        noise = t.std(dim=0) / 20_000**0.5 + 1e-3
        off = (t.mean(dim=0) - rates[f"rates.{k}"]).abs()
        # In a deep machine the rates themselves are of one draw of its hidden layers for each row.
        worst = max(worst, float((off / (noise * (8 if name == "deep" else 1))).max()))
    assert worst < 4 if kind is RatesFPCD else worst > 4


@pytest.mark.parametrize("shared", [False, True])
def test_fast_weights_by_hand(shared, generator):
    """Each chain against a machine of its own, with θ + θ_F written into its parameters."""
    machine = pair("softmax", "spin")
    rows = _rows(machine)
    sampler = RatesFPCD(rows, rate=0.3, decay=0.7, shared=shared)
    state = sampler.init(machine, _rows(machine, 3), generator)
    h = unit.mean(machine.layers[1], machine.field(1, (rows, rows))).detach()
    w0 = machine.joints[0].weight.detach().clone()
    torch.testing.assert_close(state.extra["rates.layer.0"], rows.mean(dim=0))
    torch.testing.assert_close(state.extra["rates.layer.1"], h.mean(dim=0))
    torch.testing.assert_close(state.extra["rates.joint.0"], rows.T @ h / len(rows))
    for _ in range(4):
        old, (state, _) = state, sampler.step(machine, state, generator)
        v, s = state.layers
        pairs = v[:, :, None] * s[:, None]
        now = {"layer.0": v, "layer.1": s, "joint.0": pairs}
        for k, t in now.items():
            t = t.mean(dim=0, keepdim=True) if shared else t
            want = 0.7 * old.extra[f"fast.{k}"] + 0.3 * (state.extra[f"rates.{k}"] - t)
            torch.testing.assert_close(state.extra[f"fast.{k}"], want)
    # The field of a chain is that of a machine with its fast weights.
    i = 0 if shared else 1
    push = sampler._push(machine, list(state.layers), dict(state.extra), 1)[1]
    field = state.layers[0][1] @ (w0 + state.extra["fast.joint.0"][i])
    want = field + state.extra["fast.layer.1"][i]
    torch.testing.assert_close(push + state.layers[0][1] @ w0, want)


def test_one_chain_is_the_same_either_way():
    machine, found = pair("bernoulli", "bernoulli"), []
    for shared in (False, True):
        generator = Generator().manual_seed(4)
        sampler = RatesFPCD(_rows(machine), 0.2, shared=shared)
        state = sampler.init(machine, _rows(machine, 1), generator)
        states = []
        for _ in range(30):
            state, _ = sampler.step(machine, state, generator)
            states.append(torch.cat(state.layers, dim=1))
        found.append(torch.cat(states))
    assert torch.equal(*found)


def _modes() -> tuple[gb.BoltzmannMachine, torch.Tensor]:
    """Two modes, of probabilities 1/2 each, that Gibbs steps hardly leave; and rows of both."""
    machine = gb.rbm(6, 1).double()
    with torch.no_grad():
        machine.joints[0].weight.fill_(6.0)
        machine.layers[0].bias.fill_(-3.0)
        machine.layers[1].bias.fill_(-18.0)
    return machine, torch.cat([torch.ones(20, 6), torch.zeros(20, 6)]).double()


def _upper(sampler: gb.Sampler) -> float:
    """Return the share of steps spent in the upper mode, where all chains begin."""
    machine, _ = _modes()
    generator, found = Generator().manual_seed(0), []
    state = sampler.init(machine, torch.ones(100, 6).double(), generator)
    for _ in range(150):
        state, _ = sampler.step(machine, state, generator)
        found.append((state.layers[0].mean(dim=1) > 0.5).double().mean())
    return float(torch.stack(found[50:]).mean())


def test_it_reaches_modes_that_gibbs_does_not():
    _, rows = _modes()
    assert _upper(Gibbs()) > 0.75
    assert 0.2 < _upper(RatesFPCD(rows, rate=0.1)) < 0.8
    assert 0.2 < _upper(RatesFPCD(rows, rate=0.1, statistics="sampled")) < 0.8


def _distance(rate: float, steps: int = 40, chains: int = 4000) -> tuple[float, float]:
    """Return how far joint states and mean statistics are off, the data being the machine's own.

    The total variation of the joint states (noise alone makes it about 0.03), and the largest shift of a
    mean of a unit in its standard deviations (noise alone: about 0.03).
    """
    machine = pair("bernoulli", "bernoulli")
    table = testing.enumerate_states(machine)
    generator = Generator().manual_seed(1)
    drawn = torch.multinomial(table.probabilities, 20_000, replacement=True, generator=generator)
    sampler = RatesFPCD(table.states[0][drawn], rate)
    state = sampler.init(machine, table.states[0][drawn[:chains]], generator)
    state, _ = run(sampler, machine, state, steps, generator)
    found, every = torch.cat(state.layers, dim=1), torch.cat(table.states, dim=1)
    counts = (found[:, None] == every).all(dim=-1).double().mean(dim=0)
    mean = table.mean(every)
    sd = (table.mean(every**2) - mean**2).sqrt()
    total = 0.5 * float((counts - table.probabilities).abs().sum())
    return total, float(((found.mean(dim=0) - mean) / sd).abs().max())


def test_how_far_it_perturbs_the_distribution():
    """Nothing to be seen at the default ε on a machine that mixes, a little at 1, and much at 10.

    Mean statistics move later than joint states: they are what the fast weights hold in place.
    """
    found = {rate: _distance(rate) for rate in (0.0, 0.005, 1.0, 10.0)}
    assert found[0.0][0] < 0.05 and found[0.005][0] < 0.05
    assert found[10.0][0] > 0.07 and found[1.0][0] > found[0.0][0]
    assert found[1.0][1] < 0.1 < found[10.0][1]


def test_it_is_no_sampler_of_the_machine_at_a_high_rate():
    machine = pair("bernoulli", "bernoulli")
    with pytest.raises(AssertionError):
        testing.check_distribution(RatesFPCD(_rows(machine), 1.0), machine, chains=4000, steps=25)


def test_held_units_stay_held():
    machine = pair("bernoulli", "bernoulli")
    mask = torch.tensor([True, False, False])
    clamps = {0: gb.Clamp(mask, torch.ones(3).double())}
    testing.check_contract(RatesFPCD(_rows(machine), 0.2), machine, clamps=clamps)


def test_as_the_sampler_of_pcd_and_of_sample(generator):
    machine = pair("bernoulli", "bernoulli").float()
    rows = _rows(machine)
    samples = gb.sample(machine, 5, 10, sampler=RatesFPCD(rows.tolist(), 0.01))
    assert samples.samples.shape == (5, 3)
    method = gb.PCD(chains=4, sampler=RatesFPCD(rows, 0.01))
    chains = method.init(machine, rows, generator)
    chains = method.step(machine, rows, chains, generator).chains
    assert isinstance(chains, ChainState)
    assert bool((chains.extra["fast.joint.0"] != 0).any())


def test_impossible_settings():
    rows = torch.ones(3, 3)
    for settings, says in (
        ({"rate": -1.0}, "0 or positive"),
        ({"rate": float("inf")}, "finite number"),
        ({"decay": 1.0}, r"\[0, 1\)"),
        ({"statistics": "bits"}, "'rates' or 'sampled', not 'bits'"),
    ):
        with pytest.raises(GibbsianError, match=says):
            RatesFPCD(rows, **settings)
    with pytest.raises(GibbsianError, match=r"takes rows of data .*, not 'digits'\.$"):
        RatesFPCD("digits")
    with pytest.raises(DataError, match="from 0 to 1"):
        gb.sample(gb.rbm(3, 2), 2, 1, sampler=RatesFPCD(7 * rows))


def test_chains_that_leave_all_finite_values_are_told():
    """Fast couplings of unbounded units on both sides may have no finite partition function."""
    machine = gb.relu_rbm(6, 5)
    rows = torch.randn(50, 6, generator=Generator().manual_seed(0))
    wild = RatesFPCD(rows, rate=5.0)
    with pytest.raises(GibbsianError, match="Chains left all finite values within 400 steps"):
        gb.sample(machine, 10, 400, sampler=wild, generator=0)
    assert gb.sample(machine, 10, 400, sampler=RatesFPCD(rows, rate=1e-4)).samples.isfinite().all()
