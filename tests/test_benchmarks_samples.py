"""The benchmarks of samples, clusters and certificates: what they measure with, and that they run."""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gibbsian as gb
from gibbsian.evaluators import exact

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():  # an installed copy of the tests has none
    pytest.skip("there are no benchmarks here", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import budget, clusters, gaussian, likeness, noise  # noqa: E402


def test_frechet_distance_is_that_of_the_closed_form():
    # Diagonal covariances commute: ‖μ₁ − μ₂‖² + Σ (σ₁ − σ₂)².
    a = likeness.Moments(np.array([1.0, 2.0, 0.0]), np.diag([4.0, 9.0, 1.0]))
    b = likeness.Moments(np.array([0.0, 0.0, 0.0]), np.diag([1.0, 1.0, 1.0]))
    assert likeness.frechet(a, b) == pytest.approx(5 + (1 + 4 + 0))
    assert likeness.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert likeness.frechet(a, b) == pytest.approx(likeness.frechet(b, a))


def test_frechet_distance_of_covariances_that_do_not_commute():
    from scipy.linalg import sqrtm

    generator = np.random.default_rng(0)
    rows = [generator.normal(size=(9, 4)) @ generator.normal(size=(4, 4)) for _ in range(2)]
    a, b = (likeness.Moments.of(torch.from_numpy(x)) for x in rows)
    product = np.trace(sqrtm(a.covariance @ b.covariance)).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance) - 2 * product
    assert likeness.frechet(a, b) == pytest.approx(expected)
    twin = np.sqrt(a.covariance.clip(0) * b.covariance.clip(0)).trace()  # entry by entry: wrong
    assert abs(twin - product) > 0.1


def test_jumps_are_passages_from_side_to_side_and_the_middle_is_neither():
    series = torch.tensor([
        [0.5, 0.0, 1.0, 0.1], [0.9, 0.6, 0.6, 0.9], [0.6, 0.4, 0.4, 0.1], [0.1, 0.5, 0.9, 0.9],
    ])  # fmt: skip
    # From the middle to a side is none; 0.9 to 0.1 is one; to the middle and back is none.
    assert clusters.jumps(series).tolist() == [1, 0, 0, 3]


def test_an_axis_has_the_centres_at_0_and_1():
    a, b = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 3.0, 2.0])
    axis = clusters.Axis.between(a, b)
    assert axis.place(torch.stack([a, b, (a + b) / 2])).tolist() == pytest.approx([0, 1, 0.5])


def test_the_share_of_a_cluster_is_that_of_enumeration():
    torch.manual_seed(0)
    machine, signs = gb.rbm(7, 3), torch.tensor([1.0, -1, 1, 1, -1, 1, -1])
    with torch.no_grad():
        for p in machine.parameters():
            p.normal_(0, 1)
    (v,) = next(exact.states([machine.layers[0]], 2**7))
    with torch.no_grad():
        p = torch.softmax(-machine.free_energy(v).double(), dim=0)
    agree = torch.where(signs > 0, v, 1 - v).sum(dim=1)
    assert clusters.share(machine, signs) == pytest.approx(float(p[agree > 3.5].sum()), abs=1e-6)


def test_the_machine_with_two_far_modes_has_the_share_it_was_made_for():
    machine, signs = clusters.far_modes()
    assert clusters.share(machine, signs) == pytest.approx(clusters.SHARE, abs=1e-4)
    rows = clusters.draw(machine, 4_000, 0)
    above = (torch.where(signs > 0, rows, 1 - rows).mean(dim=1) > 0.5).double().mean()
    error = math.sqrt(clusters.SHARE * (1 - clusters.SHARE) / 4_000)
    assert abs(float(above) - clusters.SHARE) < 4 * error


def test_a_run_goes_on_and_a_finished_one_is_only_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "_SECONDS", 0.05)
    data = gb.data.load((np.arange(80).reshape(20, 4) % 3 == 0).astype("float32"))
    found, seconds = budget.train("rbm", data, 3, 0.001, tmp_path / "run")
    assert found.step > 0 and seconds > 0
    monkeypatch.setattr(gb, "train", None)
    again, same = budget.train("rbm", data, 3, 0.001, tmp_path / "run")
    assert (again.step, same) == (found.step, seconds)


def test_samples_of_every_sampler_come_at_every_step_or_not_at_all(tmp_path):
    torch.manual_seed(0)
    rows = torch.randn(60, 5).numpy()
    trained = gb.train(gb.gaussian_rbm(5, 3), rows, updates=5, progress=False)
    for name in [*noise.SAMPLERS, "annealed"]:
        found = dict(noise.draw(trained, name, 70, (2, 4), 60))
        assert list(found) == [2, 4]
        for d in found.values():
            assert d.samples.shape == d.means.shape == (noise.FEW.get(name, 70), 5)
        assert list(dict(noise.draw(trained, name, 70, (2, 4), 0.0))) == [2]


def test_a_run_of_the_gaussian_benchmark_writes_its_results(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "_SECONDS", 0.05)
    monkeypatch.setattr(likeness, "_EPOCHS", 1)
    monkeypatch.setattr(likeness, "_SEEN", 0)
    options = argparse.Namespace(
        data="digits", model="gaussian-rbm", minutes=0.001, hidden=4, chains=64, steps=(2,),
        samplers=["gibbs"], seconds=1, certify_steps=16, stop=None, out=tmp_path,
        noise=0.4, lr=0.05, refresh=0.01, validation=0,
    )  # fmt: skip
    gaussian.run(options)
    found = json.loads((tmp_path / "digits-gaussian-rbm" / "results.json").read_text())
    assert {"training", "floors", "samples", "certificates"} <= set(found)
    assert [r["what"] for r in found["samples"]] == ["clean", "samples", "means"]
    assert found["floors"][0]["frechet_pixels"] < found["samples"][0]["frechet_pixels"]
    gaussian.sheet.table(tmp_path)
    assert "gibbs" in (tmp_path / "table.md").read_text()
