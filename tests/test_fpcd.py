"""Fast PCD: its fast weights, what its chains sample, and whole runs with it."""

import copy

import pytest
import torch
from test_machine import pair, small_machine
from test_resume import Stop, StopAt, assert_equal_runs, train
from torch import Generator

import gibbsian as gb
from gibbsian import fast
from gibbsian.errors import GibbsianError, TrainingError
from gibbsian.estimators import FPCD, PCD, from_spec
from gibbsian.machine import BoltzmannMachine
from gibbsian.precision import lowered
from gibbsian.samplers import ChainState, Gibbs
from gibbsian.units import Bernoulli, Gaussian, Mixed, Spin

MACHINES = {
    "bernoulli": lambda: pair("bernoulli", "bernoulli"),
    "spin-binomial": lambda: pair("spin", "binomial"),
    "gaussian": lambda: pair("gaussian", "bernoulli"),
    "relu-gaussian": lambda: pair("relu", "gaussian"),
    "softmax-spin": lambda: pair("softmax", "spin"),
    "mixed-mixed": lambda: pair("mixed", "mixed"),
    "deep": lambda: small_machine(Bernoulli(3), Spin(2), Bernoulli(2), seed=2),
}


def _rows(machine: BoltzmannMachine, n: int = 11) -> torch.Tensor:
    like = next(machine.parameters())
    return machine.layers[0].domain.noise(n, Generator().manual_seed(7)).to(like)


def _overlay(chains: ChainState) -> dict[str, torch.Tensor]:
    return {k.removeprefix("fast."): t for k, t in chains.extra.items() if k.startswith("fast.")}


@pytest.mark.parametrize("name", MACHINES)
def test_fast_weights_follow_the_gradient_and_decay(name, generator):
    machine = MACHINES[name]()
    x, weights = _rows(machine), torch.rand(11, generator=generator)
    method = FPCD(chains=7, fast_lr=0.3, decay=0.8)
    chains = method.init(machine, x, generator)
    want = {k: torch.zeros_like(t) for k, t in _overlay(chains).items()}
    for _ in range(3):
        phases = method.step(machine, x, chains, generator, weights)
        chains = phases.chains
        want = {
            k: 0.8 * t + 0.3 * (phases.positive[k] - phases.negative[k]) for k, t in want.items()
        }
        found = _overlay(chains)
        assert found.keys() == want.keys()
        for k, t in want.items():
            torch.testing.assert_close(found[k], t)
    names = {k for k in machine.learned() if not k.rpartition(".")[2].startswith("log_")}
    assert set(want) == names
    assert all(bool(t.abs().max() > 1e-3) for t in want.values())


def _moved(machine: BoltzmannMachine, overlay: dict[str, torch.Tensor]) -> BoltzmannMachine:
    """The machine with fast weights, by names."""
    other = copy.deepcopy(machine)
    state = other.state_dict()
    other.load_state_dict({k: p + overlay[k] if k in overlay else p for k, p in state.items()})
    return other


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "softmax-spin", "mixed-mixed", "deep"])
def test_chains_sample_the_machine_with_fast_weights(name, generator):
    machine = MACHINES[name]()
    before = {k: p.clone() for k, p in machine.state_dict().items()}
    method = FPCD(steps=3, chains=50, start="noise")
    chains = method.init(machine, _rows(machine), generator)
    # Small enough for a proper machine: fast weights beyond that are scaled down.
    noise = Generator().manual_seed(2)
    overlay = {
        k: 0.2 * torch.randn(t.shape, generator=noise, dtype=t.dtype)
        for k, t in _overlay(chains).items()
    }
    chains = ChainState(chains.layers, {f"fast.{k}": t for k, t in overlay.items()})
    phases = method.step(machine, _rows(machine), chains, Generator().manual_seed(1))
    other, source = _moved(machine, overlay), Generator().manual_seed(1)
    assert other.is_proper()
    state = ChainState(chains.layers)
    for _ in range(3):
        state, _ = Gibbs().step(other, state, source)
    for a, b in zip(phases.chains.layers, state.layers, strict=True):
        torch.testing.assert_close(a, b)
    # The model's statistics are the machine's own means over these states.
    negative = machine.mean_statistics(state.layers, 1)
    for k, t in negative.items():
        torch.testing.assert_close(phases.negative[k], t)
    assert all(torch.equal(before[k], p) for k, p in machine.state_dict().items())


def test_without_a_fast_learning_rate_it_is_pcd():
    machine = pair("bernoulli", "bernoulli")
    x = _rows(machine)
    found = []
    for method in (FPCD(steps=2, chains=9, fast_lr=0), PCD(steps=2, chains=9)):
        generator = Generator().manual_seed(3)
        phases = method.step(machine, x, method.init(machine, x, generator), generator)
        found.append(phases.gradient(machine, machine.learned()))
    for k in machine.learned():
        torch.testing.assert_close(found[0][k], found[1][k])


def _reached(method, updates: int = 200) -> float:
    """Return the share of chains, all begun in one of two modes, that are in the other; θ is fixed."""
    machine = gb.rbm(8, 1).double()
    with torch.no_grad():
        machine.joints[0].weight.fill_(6.0)
        machine.layers[0].bias.fill_(-3.0)
        machine.layers[1].bias.fill_(-24.0)
    generator = Generator().manual_seed(0)
    ones, zeros = torch.ones(50, 8).double(), torch.zeros(50, 8).double()
    chains = method.init(machine, ones, generator)
    for _ in range(updates):
        chains = method.step(machine, torch.cat([ones, zeros]), chains, generator).chains
    return float((chains.layers[0].mean(dim=1) < 0.5).double().mean())


def test_fast_weights_make_chains_change_modes():
    """Both modes are the data's and equally deep; the way between them has probability e^−12."""
    assert _reached(PCD(chains=50, start="data")) < 0.1
    assert 0.2 < _reached(FPCD(chains=50, start="data", fast_lr=0.3)) < 0.8


def test_a_machine_with_fast_weights_stays_proper(generator):
    machine = small_machine(Gaussian(2), gb.ReLU(2))
    overlay = {k: torch.zeros_like(t) for k, t in fast.zeros(machine).items()}
    overlay["connections.0.weight"] += 50
    assert not _moved(machine, overlay).is_proper()
    assert fast.Shifted(machine).at(overlay).is_proper()


def test_fixed_parameters_have_no_fast_weights():
    machine = gb.hopfield(4, 2)
    assert set(fast.zeros(machine)) == set(machine.learned())
    machine = gb.layered(Mixed([Gaussian(2, learn=False), Bernoulli(2)]), Bernoulli(2))
    assert "units.0.members.0.bias" not in fast.zeros(machine)
    assert "units.0.members.1.bias" in fast.zeros(machine)


def test_lowered_products(generator):
    machine = gb.rbm(6, 4)
    with torch.no_grad():
        machine.joints[0].weight.normal_(generator=generator)
    walker, method = lowered(machine), FPCD(chains=5, fast_lr=0.5)
    x = _rows(machine)
    chains = method.init(walker, x, generator)
    for _ in range(3):
        chains = method.step(walker, x, chains, generator).chains
    overlay = _overlay(chains)
    moved = fast.Shifted(walker).at(overlay)
    assert set(overlay) == set(machine.learned())
    v = chains.layers[0].float()
    want = v @ (machine.joints[0].weight + overlay["connections.0.weight"])
    torch.testing.assert_close(
        moved.fields(1, (v, v))[1].float(), want.detach(), rtol=0.05, atol=0.1
    )


class Counted(Gibbs):
    """Block Gibbs with something to remember."""

    def init(self, machine, visible, generator, clamps=None):
        state = super().init(machine, visible, generator, clamps)
        return ChainState(state.layers, {"steps": torch.zeros(())})

    def step(self, machine, state, generator, clamps=None):
        after, info = super().step(machine, state, generator, clamps)
        return ChainState(after.layers, {"steps": state.extra["steps"] + 1}), info


def test_any_sampler_keeps_its_own_state(generator):
    machine = pair("bernoulli", "spin")
    method = FPCD(steps=2, chains=4, sampler=Counted())
    chains = method.init(machine, _rows(machine), generator)
    chains = method.step(machine, _rows(machine), chains, generator).chains
    assert float(chains.extra["steps"]) == 2
    assert set(_overlay(chains)) == set(fast.zeros(machine))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "number of steps of FPCD"),
        ({"chains": 0}, "number of chains"),
        ({"start": "nose"}, "start from noise, reference, data, not"),
        ({"fast_lr": -0.1}, "0 or positive"),
        ({"fast_lr": float("nan")}, "finite number"),
        ({"decay": 1.0}, r"\[0, 1\)"),
    ],
)
def test_impossible_settings(settings, says):
    with pytest.raises(TrainingError, match=says):
        FPCD(**settings)


def test_specification_round_trip(generator):
    method = FPCD(steps=2, chains=5, start="noise", fast_lr=0.02, decay=0.9)
    again = from_spec(method.config)
    assert isinstance(again, FPCD) and again.config == method.config
    with pytest.raises(GibbsianError, match="does not take"):
        from_spec({"kind": "fpcd", "refresh": 0.1})
    with pytest.raises(TrainingError, match="call init first"):
        method.step(gb.rbm(3, 2), torch.ones(2, 3), None, generator)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_goes_on_bit_for_bit(precision, tmp_path):
    options = {"method": FPCD(chains=9, fast_lr=0.05), "precision": precision}
    train(tmp_path / "whole", **options)
    with pytest.raises(Stop):
        train(tmp_path / "cut", callbacks=[StopAt(31)], **options)
    gb.resume(tmp_path / "cut", progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_the_digits():
    data, values = gb.data.load("digits", transform="threshold"), {}
    for name, method in {"pcd": PCD(), "fpcd": FPCD()}.items():
        options = {"updates": 300, "log_every": 150, "average": 0.9, "progress": False}
        result = gb.train(gb.rbm(64, 32), data, method, lr=0.2, **options)
        values[name] = [r["pseudo_likelihood"]["validation"] for r in result.history]
    assert values["fpcd"][-1] > values["fpcd"][0] + 0.5
    assert abs(values["fpcd"][-1] - values["pcd"][-1]) < 0.5
