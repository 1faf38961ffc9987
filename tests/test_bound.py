"""The variational bound on rows of deep machines, and what `evaluate` and the command line say of it."""

import json
import math

import pytest
import torch
from command_line import call, works
from evaluator_machines import MACHINES, rows, truth

import gibbsian as gb
from gibbsian import testing
from gibbsian.evaluators import (
    Partition,
    estimate,
    free_energies,
    log_likelihood,
    variational_bound,
    variational_free_energies,
)

DEEP = [k for k in MACHINES if "layers" in k]


def _exact(machine, x) -> torch.Tensor:
    """log Σ_h exp(−E(v, h)), by enumeration."""
    return torch.tensor([testing.machines.posterior(machine, row).log_z for row in x]).double()


@pytest.mark.parametrize("name", DEEP)
def test_the_bound_lies_below_the_exact_log_likelihood(name) -> None:
    machine, x = MACHINES[name], rows(MACHINES[name], 9)
    exact = _exact(machine, x) - truth(name).log_z
    found = variational_bound(machine, x, truth(name).log_z)
    assert found.dtype == torch.float64
    assert bool((found <= exact + 1e-9).all()) and float((exact - found).max()) < 2
    # A log Z that is too low, as AIS has it on average, breaks the bound for some machine and row.
    wrong = variational_bound(machine, x, truth(name).log_z - 2)
    assert bool((wrong > exact).any())
    whole = log_likelihood(machine, x, truth(name).log_z)
    assert whole.is_bound and whole.mean == pytest.approx(float(found.mean()))
    assert torch.equal(whole.rows, found)


@pytest.mark.parametrize("name", DEEP)
def test_any_q_gives_a_bound(name) -> None:
    machine, x = MACHINES[name], rows(MACHINES[name], 9)
    exact = _exact(machine, x)
    for sweeps in (1, 2, 50):
        found = -variational_free_energies(machine, x, sweeps=sweeps, tolerance=0.0)
        assert bool((found <= exact + 1e-9).all())


def test_without_upper_couplings_it_is_the_likelihood() -> None:
    machine = testing.perturbed(gb.dbm(5, [4, 3]), 0.7, seed=1).float()
    with torch.no_grad():
        machine.joints[1].weight.zero_()
    x = rows(machine, 9)
    found = variational_free_energies(machine, x)
    torch.testing.assert_close(-found, _exact(machine, x), rtol=1e-6, atol=1e-6)


def test_with_one_hidden_layer_it_is_the_free_energy(monkeypatch) -> None:
    machine = MACHINES["bernoulli-bernoulli"]
    x = rows(machine, 11)
    found = variational_free_energies(machine, x)
    torch.testing.assert_close(found, free_energies(machine, x), rtol=1e-6, atol=1e-6)
    assert not log_likelihood(machine, x, 0.0).is_bound
    monkeypatch.setattr("gibbsian.evaluators.bound._CHUNK_ELEMENTS", 1)
    torch.testing.assert_close(variational_free_energies(machine, x), found)


def test_both_estimates_of_log_z_go_into_the_bound() -> None:
    machine, x = MACHINES["three layers"], rows(MACHINES["three layers"], 9)
    log_z = truth("three layers").log_z
    weights = torch.full((10,), log_z).double()
    forward = estimate(weights - 0.1, "forward", 5)
    reverse = estimate(-(weights + 0.2), "reverse", 5)
    found = log_likelihood(machine, x, Partition(None, forward, {"data": reverse}))
    mean = float(variational_bound(machine, x, log_z).mean())
    assert found.ais == pytest.approx(mean + 0.1)
    assert found.reverse["data"] == pytest.approx(mean - 0.2)
    assert found.as_dict()["is_bound"] and "variational lower bound" in found.units


@pytest.mark.slow
def test_a_deep_run_goes_through_the_commands(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    works("train", "digits", "--model", "dbm", "--hidden", "6,4,3", "--updates", 60, "--limit", 150,
          "--checkpoint-every", 20, "--out", "run")  # fmt: skip
    assert gb.load("run").machine.sizes == (64, 6, 4, 3)
    quick = ("--chains", 12, "--temperatures", 60, "--mixing-steps", 60, "--rows", 60)
    found = json.loads(works("evaluate", "run", *quick, "--json").out)
    part = found["test"]["log_likelihood"]
    assert part["is_bound"] and math.isfinite(part["ais"]) and math.isfinite(part["reverse_ais"])
    assert part["ais"] - part["reverse_ais"] == pytest.approx(part["gap"])
    assert found["certificate"]["checks"] and found["test"]["pseudo_likelihood"] is None
    assert "free energy left out" in found["certificate"]["checks"]["held_out"]["words"]
    works("report", "run", *quick)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "variational lower bound" in page
    assert "test log-likelihood, bound" in page
    assert {"filters.png", "filters_2.png", "filters_3.png"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--model rbm --hidden 5,4", "one hidden layer, and 2 sizes were given"),
        ("--model dbm --hidden 5,0", "--hidden takes numbers"),
        ("--model dbm --hidden 5;4", "--hidden takes numbers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_sentence(words, sentence, tmp_path) -> None:
    found = call("train", "digits", *words.split(), "--updates", 2, "--out", tmp_path / "run")
    assert sentence in found.sentence
