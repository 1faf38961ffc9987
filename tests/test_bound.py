"""The variational bound on rows of deep machines, and what `evaluate` and the command line say of it."""

import itertools
import json
import math
import re

import pytest
import torch
import torch.nn.functional as F
from command_line import call, works
from evaluator_machines import MACHINES, rows, truth

import gibbsian as gb
from gibbsian import plots, repair, testing
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


def test_a_deep_run_repairs_rows_and_knows_its_bound(tmp_path, monkeypatch) -> None:
    run, drawn, draw = tmp_path / "run", [], plots.reconstructions
    works("train", "digits", "--model", "dbm", "--hidden", "12,6", "--transform", "threshold",
          "--updates", 250, "--lr", 0.3, "--quiet", "--out", run)  # fmt: skip
    monkeypatch.setattr(
        plots, "reconstructions", lambda *rows, **how: (drawn.extend(rows), draw(*rows, **how))[1]
    )
    told = works("reconstruct", run, "--flip", 0.15, "--out", tmp_path / "r.png").out
    before, after = map(float, re.search(r"before (\S+) +after (\S+)", told).groups())
    found = gb.load(run)
    x, mean = found.data.test.tensor(), found.data.train.tensor().mean(dim=0)
    # Rows that all come out alike reach the error of the mean row at best.
    assert before == pytest.approx(0.15, abs=0.01)
    assert after < 0.85 * float((x - mean).square().mean()) < before
    original, _, repaired = (torch.as_tensor(rows) for rows in drawn)
    errors = torch.cdist(repaired, original).square()
    assert float(errors.diag().mean()) < 0.8 * float(errors.mean())

    told = works("evaluate", run, "--chains", 4, "--temperatures", 10, "--ladder-steps", 0,
                 "--mixing-steps", 20, "--rows", 180, "--json", "--quiet").out  # fmt: skip
    part = json.loads(told)["test"]
    expected = variational_bound(found.machine, x, _log_z(found.machine)).mean()
    assert part["log_likelihood"]["exact"] == pytest.approx(float(expected), abs=1e-3)
    assert part["log_likelihood"]["is_bound"]
    again = repair.reconstruct(found.machine, x)
    assert part["reconstruction_error"] == pytest.approx(
        float((again - x).square().mean()), rel=1e-4
    )


def _log_z(machine) -> float:
    """Sum the states of the first hidden layer of 12 bits, between which and the others nothing else is."""
    h = torch.tensor(list(itertools.product((0.0, 1.0), repeat=12)))
    below = machine.layers[0].bias + h @ machine.joints[0].weight.T
    above = machine.layers[2].bias + h @ machine.joints[1].weight
    free = F.softplus(below).sum(dim=1) + F.softplus(above).sum(dim=1)
    return float((h @ machine.layers[1].bias + free).double().logsumexp(dim=0).detach())


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
