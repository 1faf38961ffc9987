"""Assessment, verdict and report of trained, untrained and wrong machines."""

import json

import numpy as np
import pytest
import torch

import gibbsian as gb
from gibbsian.assessment import assess
from gibbsian.report import report

QUICK = {"chains": 50, "temperatures": 300, "mixing_steps": 400}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> gb.Trained:
    out = tmp_path_factory.mktemp("runs") / "digits"
    data = gb.data.load("digits")
    return gb.train(gb.rbm(64, 40), data, updates=2500, seed=1, lr=0.05, out=out, progress=False,
                    save_trajectory=True)  # fmt: skip


def test_report_is_one_page_with_every_part(trained: gb.Trained) -> None:
    made = report(trained, **QUICK)
    page = made.page.read_text()
    for title in ("Samples from noise", "The way there", "Likelihood between two bounds",
                  "Do the chains forget", "The ladder", "The trajectory", "Certificate",
                  "Reconstruction and denoising", "Learning curves"):  # fmt: skip
        assert title in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    names = {p.name for p in made.page.parent.glob("*.png")}
    assert {
        "samples.png",
        "means.png",
        "strip_noise.png",
        "strip_row.png",
        "filters.png",
        "mixing.png",
        "ladder.png",
        "log_z.png",
        "along_ladder.png",
        "trajectory_log_z.png",
        "trajectory_rungs.png",
    } <= names
    stored = json.loads((made.page.parent / "evaluation.json").read_text())
    assert stored["test"]["log_likelihood"]["gap"] is not None
    assert "updates = 2500" in page


def test_same_seed_same_report(tmp_path) -> None:
    data = gb.data.load("bars-and-stripes:n=3,rows=200")
    small = gb.train(gb.rbm(9, 4), data, updates=50, out=tmp_path / "run", progress=False)
    quick = {"chains": 10, "temperatures": 50, "mixing_steps": 50, "ladder_steps": 10, "seed": 3}
    first, second = (report(small, tmp_path / k, **quick).page.read_bytes() for k in "ab")
    assert first == second


def test_without_a_certificate_nothing_is_judged_good(trained: gb.Trained) -> None:
    """All else holds; 269 held-out rows and 2,000 steps cannot show what a certificate asks for."""
    found, verdict = assess(trained, **QUICK | {"chains": 100, "mixing_steps": 2000})
    texts = {f.text: f.ok for f in verdict.findings}
    assert verdict.status == "doubtful", texts
    assert found.partition.converged and found.mixing.mixed
    assert found.certificate is not None and texts[found.certificate.words[0]] is None
    assert found.certificate.needs["steps"] == 20_000
    assert 2_000 < found.certificate.needs["held_out_rows"] < 10_000
    assert any("20,000 steps" in a for a in verdict.advice)
    assert found.certificate["autocorrelation"].numbers["training_steps"] == 1
    split = found.splits["test"].log_likelihood
    assert split is not None
    assert abs(split.as_dict()["gap"]) < 0.5


def test_machine_that_forgot_its_couplings_is_judged_bad(trained: gb.Trained) -> None:
    """A machine with W = 0 mixes at once and has exact bounds, and yet its samples are noise."""
    broken = gb.models.from_spec(trained.machine.spec())
    wrong = gb.Trained(broken, broken, None, 0, [], trained.config, trained.run, trained.dataset)
    _, verdict = assess(wrong, **QUICK)
    assert verdict.status == "bad", [f.text for f in verdict.findings]


def test_machine_with_two_separate_modes_is_judged_bad(trained: gb.Trained) -> None:
    """Chains from data sit in one mode that chains from noise never find."""
    frozen = gb.models.from_spec(trained.machine.spec())
    with torch.no_grad():
        frozen.layers[0].bias.fill_(-6.0)
        frozen.joints[0].weight[:, 0] = 12.0
        frozen.layers[1].bias[0] = -384.0
    wrong = gb.Trained(frozen, frozen, None, 0, [], trained.config, trained.run, trained.dataset)
    _, verdict = assess(wrong, **QUICK)
    assert verdict.status != "good", [f.text for f in verdict.findings]


def test_evaluate_takes_runs_machines_datasets_and_rows(trained: gb.Trained) -> None:
    options = {"chains": 20, "temperatures": 60, "mixing_steps": 20}
    whole = gb.evaluate(trained, rows=100, **options).as_dict()
    assert set(whole) >= {"train", "validation", "test", "log_z", "mixing", "words"}
    rows = trained.data.test.tensor()
    alone = gb.evaluate(trained.machine, rows, **options).as_dict()
    assert "test" in alone
    with pytest.raises(gb.GibbsianError, match="no data"):
        gb.evaluate(trained.machine)
    again = gb.evaluate(trained, rows=100, **options).as_dict()
    assert again["test"]["log_likelihood"] == whole["test"]["log_likelihood"]


def test_report_of_a_table_and_of_real_values(tmp_path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "table.npy"
    np.save(path, rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)))
    data = gb.data.load(path)
    result = gb.train(gb.gaussian_rbm(6, 4), data, updates=200, lr=0.005, progress=False,
                      out=tmp_path / "run")  # fmt: skip
    made = report(result, **QUICK)
    assert "density" in made.page.read_text()
    assert not (made.page.parent / "means.png").exists()


def test_folder_that_cannot_be_made_gets_a_sentence(trained: gb.Trained, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(gb.RunError, match="cannot be made"):
        report(trained, tmp_path / "file" / "report", **QUICK)
