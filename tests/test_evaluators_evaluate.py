import json
import subprocess
import sys

import pytest
import torch
from evaluator_machines import MACHINES, exact_samples, rows, truth

from gibbsian.errors import DataError, GibbsianError
from gibbsian.evaluators import (
    evaluate,
    free_energies,
    pseudo_likelihood,
    variational_free_energies,
)
from gibbsian.models import rbm

QUICK = {"chains": 40, "temperatures": 50, "mixing_steps": 100}
BARE = QUICK | {"ladder_steps": 0}


def splits(name):
    x = exact_samples(name, 60, seed=1)[0]
    return {"train": x[:33], "validation": x[33:50], "test": x[50:]}


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_is_evaluated(name):
    machine, x = MACHINES[name], splits(name)
    found = evaluate(machine, x, generator=1, **QUICK)
    out = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert {"train", "validation", "test", "log_z", "mixing", "free_energy_gap", "words",
            "certificate"} == set(out)  # fmt: skip
    ladder = out["log_z"]["ladder"]
    assert abs(ladder["log_z"] - truth(name).log_z) < 5 * ladder["standard_error"] + 0.05
    assert out["log_z"]["believed"]["value"] == pytest.approx(truth(name).log_z, abs=0.25)
    assert out["log_z"]["ais"]["log_z"] == pytest.approx(truth(name).log_z, abs=0.25)
    assert all(isinstance(w, str) and w.endswith(".") for w in out["words"])
    for k, rows_ in x.items():
        split = out[k]
        assert split["rows"] == len(rows_)
        assert split["reconstruction_error"] > 0
        likelihood = split["log_likelihood"]
        deep = "layers" in name
        free = variational_free_energies if deep else free_energies
        exact = float(-free(machine, rows_).mean()) - truth(name).log_z
        assert likelihood["is_bound"] == deep == ("lower bound" in likelihood["units"])
        for key in (
            "ais",
            "reverse_ais",
            "reverse_ais_data",
            "reverse_ais_noise",
            "reverse_ais_ladder",
            "ladder",
        ):
            assert likelihood[key] == pytest.approx(exact, abs=0.25)
        if likelihood["exact"] is not None:
            assert likelihood["exact"] == pytest.approx(exact, abs=1e-5)
        assert likelihood["gap"] == pytest.approx(likelihood["ais"] - likelihood["reverse_ais"])
        assert 0 < likelihood["ess"] <= 40
        if deep:
            assert split["pseudo_likelihood"] is None
            continue
        expected = float(pseudo_likelihood(machine, rows_).mean())
        assert split["pseudo_likelihood"] == pytest.approx(expected, abs=1e-5)
    if "layers" in name:
        assert "variational lower bound" in out["words"][-1] and out["free_energy_gap"] is None
    else:
        free = [float(free_energies(machine, x[k]).mean()) for k in ("validation", "train")]
        assert out["free_energy_gap"] == pytest.approx(free[0] - free[1], abs=1e-6)


def test_it_repeats_with_its_seed_and_touches_no_global_state():
    name = "bernoulli-bernoulli"
    before = torch.get_rng_state()
    runs = [evaluate(MACHINES[name], splits(name), generator=s, **BARE) for s in (4, 4, 5)]
    assert runs[0].as_dict() == runs[1].as_dict() != runs[2].as_dict()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tensor_alone_is_the_test_split():
    name = "bernoulli-bernoulli"
    found = evaluate(MACHINES[name], splits(name)["test"].to(torch.uint8), generator=0, **BARE)
    assert list(found.splits) == ["test"] and found.free_energy_gap is None


def test_traces_hold_the_pictures():
    name = "gaussian-bernoulli"
    found = evaluate(MACHINES[name], splits(name), generator=0, **BARE)
    assert sorted(found.traces["noise"].visible) == [0, 1, 10, 100]
    assert found.mixing.steps == 100


def test_pseudo_likelihood_takes_so_many_rows():
    name = "bernoulli-bernoulli"
    found = evaluate(MACHINES[name], splits(name), generator=0, pseudo_rows=5, **BARE)
    assert found.splits["train"].pseudo_rows == 5
    assert found.splits["train"].rows == 33


def test_a_machine_without_an_answer_says_so():
    g = torch.Generator().manual_seed(0)
    machine = rbm(40, 30)
    with torch.no_grad():
        machine.joints[0].weight.copy_(2 * torch.randn(40, 30, generator=g))
    found = evaluate(machine, rows(machine, 30), chains=20, temperatures=10, mixing_steps=20,
                     limit_bits=10, generator=0)  # fmt: skip
    likelihood = found.as_dict()["test"]["log_likelihood"]
    assert likelihood["exact"] is None and not likelihood["converged"]
    assert likelihood["gap"] > 0.5 or likelihood["ess"] < 10
    assert any(w.startswith("Not converged") for w in found.words)
    assert any(w.startswith("Not ") and "mixed" in w for w in found.words)


def test_bad_rows_are_refused():
    machine = MACHINES["bernoulli-bernoulli"]
    with pytest.raises(DataError, match="not 'holdout'"):
        evaluate(machine, {"holdout": rows(machine, 3)})
    with pytest.raises(DataError, match="at least one split"):
        evaluate(machine, {})
    with pytest.raises(DataError, match="test rows are none"):
        evaluate(machine, torch.zeros(0, 6))
    with pytest.raises(DataError, match="rows of 6 values"):
        evaluate(machine, torch.zeros(4, 7))
    with pytest.raises(DataError, match="validation rows are defined for states"):
        evaluate(machine, {"train": rows(machine, 3), "validation": torch.full((2, 6), 0.25)})
    with pytest.raises(DataError, match="NaN"):
        evaluate(machine, torch.full((2, 6), torch.nan))
    with pytest.raises(GibbsianError, match="chains must be a whole number of at least 2"):
        evaluate(machine, rows(machine, 3), chains=1, temperatures=2, mixing_steps=8)


def test_importing_it_is_light():
    code = (
        "import sys, gibbsian.evaluators; "
        "print(sorted({'arviz_stats', 'matplotlib', 'pandas', 'sklearn', 'typer'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
