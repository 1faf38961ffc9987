"""Mean field: the bound it makes, its fixed point, and the positive phase of deep machines."""

import dataclasses

import pytest
import torch
from test_machine import small_machine
from torch import Generator

import gibbsian as gb
from gibbsian import meanfield, testing
from gibbsian.errors import GibbsianError
from gibbsian.units import base as unit

DEEP = {
    "bits": lambda: small_machine(gb.Bernoulli(4), gb.Bernoulli(3), gb.Bernoulli(3), seed=1),
    "bits-4": lambda: small_machine(*(gb.Bernoulli(n) for n in (3, 3, 2, 2)), seed=2),
    "spins-counts": lambda: small_machine(gb.Spin(3), gb.Spin(3), gb.Binomial(2, 2), seed=3),
    "softmax-real": lambda: small_machine(
        gb.Bernoulli(3), gb.Softmax(1, 3), gb.Gaussian(1), seed=4
    ),
    "real-bits": lambda: small_machine(gb.Gaussian(2), gb.Bernoulli(3), gb.Spin(2), seed=5),
}
deep = pytest.mark.parametrize("name", list(DEEP))


def _rows(machine, n: int = 6) -> torch.Tensor:
    like = next(machine.parameters())
    return machine.layers[0].domain.noise(n, Generator().manual_seed(7)).to(like)


def _truth(machine, x) -> torch.Tensor:
    """log Σ_h exp(−E(v, h)) of each row, by enumeration."""
    return torch.tensor([testing.machines.posterior(machine, row).log_z for row in x]).double()


def _entropy_and_energy(machine, q) -> torch.Tensor:
    """E_q[−E] + H(q) of each row, from expectations of statistics and the entropies of the units."""
    terms = meanfield.terms(machine, q)
    natural = {
        f"units.{i}.{k}": p
        for i, u in enumerate(machine.layers)
        for k, p in unit.natural(u).items()
    }
    total = sum((natural[k] * t).sum(dim=-1) for k, t in terms.units.items())
    for i, c in enumerate(machine.joints):
        total = total + ((q.means[i] @ c.weight) * q.means[i + 1]).sum(dim=-1)
    return total + sum(unit.entropy(machine.layers[i], f) for i, f in q.fields.items())


@deep
def test_the_bound_lies_below_the_exact_value(name) -> None:
    machine = DEEP[name]()
    x = _rows(machine)
    truth = _truth(machine, x)
    for sweeps in (1, 3, 200):
        q = meanfield.infer(machine, x, sweeps, 0.0)
        found = meanfield.free_bound(machine, q)
        assert bool((found <= truth + 1e-9).all()) and found.dtype == torch.float64
        with torch.no_grad():
            torch.testing.assert_close(found, _entropy_and_energy(machine, q))
    assert float((truth - found).max()) < 3  # and says something
    assert float((truth - found).max()) > 1e-6  # at a machine that is not factorial


@deep
def test_the_bound_is_tight_where_the_posterior_is_factorial(name) -> None:
    machine = DEEP[name]()
    with torch.no_grad():
        for joint in machine.joints[1:]:
            joint.weight.zero_()
    x = _rows(machine)
    q = meanfield.infer(machine, x)
    torch.testing.assert_close(meanfield.free_bound(machine, q), _truth(machine, x))


def test_with_one_hidden_layer_q_is_the_posterior() -> None:
    machine = small_machine(gb.Bernoulli(4), gb.Spin(3), seed=0)
    x = _rows(machine)
    q = meanfield.infer(machine, x, 1)
    with torch.no_grad():
        torch.testing.assert_close(meanfield.free_bound(machine, q), -machine.free_energy(x))


@deep
def test_sweeps_go_uphill_to_a_fixed_point(name) -> None:
    machine = DEEP[name]()
    x, last = _rows(machine), None
    for sweeps in range(1, 8):
        now = meanfield.free_bound(machine, meanfield.infer(machine, x, sweeps, 0.0))
        assert last is None or bool((now >= last - 1e-12).all())
        last = now
    q = meanfield.infer(machine, x, 2000, 1e-12)
    assert q.change < 1e-12
    for layer in range(1, len(machine.layers)):
        torch.testing.assert_close(q.fields[layer], machine.field(layer, q.means))
    # No other field on a single unit does better.
    best = meanfield.free_bound(machine, q)
    for layer in q.fields:
        for step in (-0.2, 0.2):
            field = q.fields[layer].clone()
            field[:, 0] += step
            means = list(q.means)
            with torch.no_grad():
                means[layer] = unit.mean(machine.layers[layer], field)
            moved = dataclasses.replace(q, fields={**q.fields, layer: field}, means=tuple(means))
            assert bool((meanfield.free_bound(machine, moved) < best).all())


@deep
def test_damped_sweeps_end_at_the_same_point_later(name) -> None:
    machine = DEEP[name]()
    x = _rows(machine)
    plain, damped = (meanfield.infer(machine, x, 500, 1e-9, damping=d) for d in (0.0, 0.5))
    assert damped.sweeps > plain.sweeps
    for a, b in zip(plain.means, damped.means, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@deep
def test_statistics_are_those_of_draws_from_q(name) -> None:
    """And T of the mean, which is not the mean of T, would be told apart."""
    machine, n = DEEP[name](), 40_000
    x = _rows(machine, 1)
    q = meanfield.infer(machine, x)
    terms = meanfield.terms(machine, q).sums(torch.ones(1).double())
    generator = Generator().manual_seed(1)
    drawn = [x.expand(n, -1)] + [
        machine.layers[i].sample(f.expand(n, -1), generator) for i, f in q.fields.items()
    ]
    with torch.no_grad():
        truth = machine.terms(drawn, None)
        wrong = machine.mean_statistics(q.means, None)
    apart = 0.0
    for k in terms:
        each = truth.units.get(k)
        if each is None:
            i = int(k.split(".")[1])
            each = torch.einsum("ra,rb->rab", drawn[i], drawn[i + 1])
        error = each.std(dim=0).clamp(min=1e-6) / n**0.5
        score = (terms[k] - each.mean(dim=0)).abs() / error
        assert float(score.max()) < 5, k
        apart = max(apart, float(((wrong[k] - each.mean(dim=0)).abs() / error).max()))
    hidden = zip(machine.layers[1:], q.means[1:], strict=True)
    if any(len(u.statistics(m)) > 1 for u, m in hidden):
        assert apart > 5


METHODS = {
    "pcd": gb.PCD(chains=5), "fpcd": gb.FPCD(chains=5), "jarzynski": gb.Jarzynski(chains=5, witnesses=2),
    "ptt": gb.PTT(chains=5, reservoir=2),
}  # fmt: skip


@pytest.mark.parametrize("method", list(METHODS))
def test_persistent_methods_take_the_data_under_mean_field(method) -> None:
    machine = DEEP["bits"]()
    x = _rows(machine)
    generator = Generator().manual_seed(0)
    made = METHODS[method]
    phases = made.step(machine, x, made.init(machine, x, generator), generator)
    q = meanfield.infer(machine, x)
    for i, m in enumerate(q.means):
        torch.testing.assert_close(phases.mean(machine, i), m.mean(dim=0))
    torch.testing.assert_close(
        phases.positive["connections.1.weight"], q.means[1].T @ q.means[2] / len(x)
    )


def test_the_gradient_is_that_of_the_bound() -> None:
    """With exact model averages: by finite differences of the mean bound minus log Z."""
    machine = DEEP["bits-4"]()
    x = _rows(machine)
    table = testing.enumerate_states(machine)

    def objective() -> float:
        q = meanfield.infer(machine, x, 2000, 1e-13)
        log_z = testing.enumerate_states(machine).log_z
        return float(meanfield.free_bound(machine, q).mean()) - log_z

    with torch.no_grad():
        q = meanfield.infer(machine, x, 2000, 1e-13)
        weights = torch.full((len(x),), 1 / len(x)).double()
        negative = machine.mean_statistics(table.states, None, table.probabilities)
        found = machine.gradient(meanfield.terms(machine, q).sums(weights), negative)
        for name, p in machine.learned().items():
            flat = p.view(-1)
            for i in range(0, flat.numel(), 4):
                old, h, ends = float(flat[i]), 1e-4, []
                for step in (h, -h):
                    flat[i] = old + step
                    ends.append(objective())
                flat[i] = old
                slope = (ends[0] - ends[1]) / (2 * h)
                assert float(found[name].view(-1)[i]) == pytest.approx(-slope, abs=1e-6), name


def test_mean_field_pcd_has_the_gradient_of_the_bound_and_gibbs_has_not() -> None:
    """With model averages by long chains; the two positive phases must be told apart by this very test."""
    machine = DEEP["bits"]()
    x = _rows(machine)
    table = testing.enumerate_states(machine)
    with torch.no_grad():
        q = meanfield.infer(machine, x)
        weights = torch.full((len(x),), 1 / len(x)).double()
        negative = machine.mean_statistics(table.states, None, table.probabilities)
        truth = machine.gradient(meanfield.terms(machine, q).sums(weights), negative)
    scores = []
    for inference in ("mean-field", "gibbs"):
        method, found = gb.PCD(steps=3, chains=200, inference=inference), []
        for seed in range(12):
            generator = Generator().manual_seed(seed)
            chains = method.init(machine, x.repeat(100, 1), generator)
            for _ in range(8):
                phases = method.step(machine, x.repeat(100, 1), chains, generator)
                chains = phases.chains
            found.append(phases.gradient(machine, machine.learned()))
        worst = 0.0
        for k, t in truth.items():
            stack = torch.stack([g[k] for g in found])
            error = stack.std(dim=0).clamp(min=1e-9) / len(stack) ** 0.5
            worst = max(worst, float(((stack.mean(dim=0) - t).abs() / error).max()))
        scores.append(worst)
    assert scores[0] < 5 < scores[1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sweeps": 0}, "number of sweeps of mean field"),
        ({"tolerance": -1.0}, "tolerance of mean field"),
        ({"damping": 1.0}, r"damping of mean field lies in \[0, 1\)"),
    ],
)
def test_impossible_settings_are_refused(settings, words) -> None:
    machine = DEEP["bits"]()
    with pytest.raises(GibbsianError, match=words):
        meanfield.infer(machine, _rows(machine), **settings)
