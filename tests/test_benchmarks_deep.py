"""The deep benchmark at a tiny size: it goes on after a kill, and tells its bounds."""

import json
import sys
from pathlib import Path

import pytest
import torch

import gibbsian as gb

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():  # an installed copy of the tests has none
    pytest.skip("there are no benchmarks here", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import budget, deep, likelihood  # noqa: E402
from gibbsian.training import Trainer  # noqa: E402


class _Killed(BaseException):
    """What stands for a kill."""


def test_a_budget_counts_the_time_of_all_sessions() -> None:
    now = [0.0]
    first = budget.Budget(1, lambda: now[0])
    first.on_start(None)  # type: ignore[arg-type]
    now[0] = 24.0
    assert first.done == pytest.approx(0.4)
    now[0] = 1000.0  # another process, much later
    second = budget.Budget(1, lambda: now[0])
    second.load_state_dict({"seconds": 24.0})
    second.on_start(None)  # type: ignore[arg-type]
    now[0] = 1012.0
    assert second.done == pytest.approx(0.6) and second.state_dict() == {"seconds": 36.0}


def test_stages_of_the_long_run_begin_as_the_one_before_and_the_last_is_certified(
    tmp_path, monkeypatch, capsys
) -> None:
    load = gb.data.load
    monkeypatch.setattr(gb.data, "load", lambda *a, **more: load("digits"))
    options = likelihood.reader().parse_args(
        ["long", "--hidden", "6", "--minutes", "0.03", "--shares", "0.4", "0.6", "--many", "20",
         "--precision", "fp32", "--batch-size", "10", "--chains", "12", "--temperatures", "40",
         "--ladder-steps", "20", "--certify-chains", "8", "--certify-steps", "40", "--out", str(tmp_path)]
    )  # fmt: skip
    likelihood.long(options)
    runs = [gb.load(tmp_path / k) for k in ("first", "long")]
    second = runs[1]
    assert second.config["training"]["begin"] == str(tmp_path / "first")
    assert [r.config["method"]["chains"] for r in runs] == [100, 20]
    kept = torch.load(tmp_path / "long.pt", weights_only=True)
    assert torch.equal(kept["connections.0.weight"], second.machine.joints[0].weight)
    found = json.loads((tmp_path / "long-bounds.json").read_text())
    assert found["test_ais_low"] <= found["test_ais"] <= found["test_ais_high"] < 0
    likelihood.long(options)  # trained: evaluated again
    told = capsys.readouterr().out
    assert told.count("updates") == 2 and told.count("nats by ais") == 2
    likelihood.certify(options)
    assert json.loads((tmp_path / "certificate.json").read_text())["minutes"] > 0


def test_the_run_goes_on_after_a_kill_and_tells_its_bounds(tmp_path, monkeypatch, capsys) -> None:
    load = gb.data.load
    monkeypatch.setattr(gb.data, "load", lambda *a, **more: load("digits"))
    options = deep.parser().parse_args(
        ["dbm", "--hidden", "6,4", "--minutes", "0.02", "--every", "5", "--ais-chains", "12",
         "--temperatures", "40", "--ladder-steps", "20", "--first-minutes", "0", "--out", str(tmp_path)]
    )  # fmt: skip
    update, steps = Trainer._update, []
    # A clock that each update moves by 0.05 s: 24 of them fill the 0.02 minutes.
    clock = lambda: 0.05 * len(steps)  # noqa: E731
    monkeypatch.setattr(deep, "Budget", lambda minutes, _: budget.Budget(minutes, clock))

    def watched(self, x, weights):
        if len(steps) == 13 and steps[-1] == 12:
            raise _Killed
        steps.append(self.step)
        return update(self, x, weights)

    monkeypatch.setattr(Trainer, "_update", watched)
    with pytest.raises(_Killed):
        deep.dbm(options)
    steps[-1] = 0  # let it pass
    deep.dbm(options)
    assert steps[13] == 10 and steps[-1] in (22, 23, 24)
    found = json.loads((tmp_path / "bounds.json").read_text())
    assert found["ais_low"] <= found["ais"] <= found["ais_high"] < 0
    assert found["gap"] == pytest.approx(found["ais"] - found["reverse_ladder"])
    before = len(steps)
    deep.dbm(options)  # trained and evaluated: shown again
    told = capsys.readouterr().out
    assert len(steps) == before and told.count("nats by ais") == 2 and "peak" in told


def test_its_first_minutes_are_an_rbms_as_which_it_begins(tmp_path, monkeypatch) -> None:
    load = gb.data.load
    monkeypatch.setattr(gb.data, "load", lambda *a, **more: load("digits"))
    options = deep.parser().parse_args(
        ["dbm", "--hidden", "6,4", "--minutes", "0.02", "--first-minutes", "0.01", "--every", "5",
         "--out", str(tmp_path)]
    )  # fmt: skip
    update, steps = Trainer._update, []
    clock = lambda: 0.05 * len(steps)  # noqa: E731
    for module in (deep, likelihood):
        monkeypatch.setattr(module, "Budget", lambda minutes, _: budget.Budget(minutes, clock))
    monkeypatch.setattr(
        Trainer, "_update", lambda self, x, w: (steps.append(0), update(self, x, w))[1]
    )
    found = deep.train(options, gb.data.load("mnist"))
    stages = [json.loads((tmp_path / "first" / f"{k}.json").read_text()) for k in ("first", "long")]
    assert sum(s["updates"] for s in stages) in (11, 12, 13, 14) and found.step in (11, 12, 13)
    assert found.machine.sizes == (64, 6, 4)
    assert found.config["training"]["begin"] == str(tmp_path / "first" / "long")
