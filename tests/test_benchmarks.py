"""The benchmarks still run, and time what they say: at tiny sizes, in seconds."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import gibbsian as gb
from gibbsian import evaluators

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():  # an installed copy of the tests has none
    pytest.skip("there are no benchmarks here", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import contests, ours, peers, picture, run, scaling, table, timing  # noqa: E402
from benchmarks.sizes import Sizes  # noqa: E402

TINY = Sizes(
    visible=8, hidden=6, chains=20, sweeps=2, batch=4, rows=8, ais_chains=50, temperatures=100,
    steps=3, rounds=2, training_rows=100, updates=2, grid=(1, 2),
)  # fmt: skip


def products(work) -> float:
    """Count the multiplications of a work's matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2


# What is timed.


def test_bare_sweep_is_two_products_and_bare_epoch_five_an_update():
    pair = TINY.visible * TINY.hidden
    assert products(ours.bare_sweep(TINY, 3)) == 3 * 2 * TINY.chains * pair
    assert products(ours.bare_epoch(TINY, 3)) == 3 * 5 * TINY.batch * pair


def test_the_bare_products_are_the_least_that_a_sweep_and_an_epoch_need():
    sizes = Sizes(visible=64, hidden=48, chains=40, batch=16, rows=64)
    machine, pair = ours.machine(sizes), 64 * 48
    assert products(ours.sweep(machine, 40, 3)) >= 3 * 2 * 40 * pair
    work, updates = ours.epoch(sizes)
    assert updates == 4
    assert products(work) >= 4 * 5 * 16 * pair


def test_chains_of_a_sweep_go_on_from_call_to_call(monkeypatch):
    seen = []
    monkeypatch.setattr(ours, "run", lambda s, m, state, *_: (seen.append(state), (state, None))[1])
    work = ours.sweep(ours.machine(TINY), 5, 1)
    work(), work()
    assert seen[0] is seen[1]
    assert seen[0].layers[0].shape == (5, TINY.visible)


def test_scikit_learn_has_our_couplings_in_the_dtype_that_is_named():
    weight = ours.machine(TINY).joints[0].get_parameter("weight").detach()
    for name in ("float32", "float64"):
        made = peers.ScikitLearn().model(weight, 4, name)
        assert made._mean_hiddens(torch.ones(1, TINY.visible).numpy().astype(name)).dtype == name
        assert torch.equal(torch.tensor(made.components_.T).float(), weight)


def test_rows_in_bfloat16_are_so_and_are_left_out_where_the_cpu_is_not_made_for_it(monkeypatch):
    monkeypatch.setattr(ours, "is_fast", lambda device: True)
    made = ours.in_bfloat16(ours.machine(TINY))
    assert made.joints[0].up(torch.ones(3, TINY.visible)).dtype is torch.bfloat16
    rows = {k: getattr(contests, k)(TINY)["rows"] for k in ("sweep", "epoch")}
    assert {"gibbsian, bf16", "bare products, bf16"} <= set(rows["sweep"])
    assert "gibbsian, bf16" in rows["epoch"]
    monkeypatch.setattr(ours, "is_fast", lambda device: False)
    skipped = contests.sweep(TINY)["skipped"]
    assert skipped["gibbsian, bf16"] == "skipped: this CPU is not made for bfloat16"


# How it is timed.


@pytest.fixture
def clock(monkeypatch):
    """A clock by which each work takes as long as it returns."""
    monkeypatch.setattr(timing, "seconds", lambda work: work())
    monkeypatch.setattr(timing, "PAUSE", 0)


def test_ratios_are_medians_over_pairs_and_times_are_a_unit(clock):
    slow, base = iter([9.0, 2.0, 4.0, 100.0]), iter([9.0, 1.0, 1.0, 2.0])
    turns = timing.take_turns(lambda: next(base), {"slow": lambda: lambda: next(slow)}, 3, 0)
    assert turns.pairs["slow"] == [(2.0, 1.0), (4.0, 1.0), (100.0, 2.0)]
    found = timing.rows(turns, "base", per=10, flips=800)
    assert found["slow"]["ratio"] == 4.0
    assert found["slow"]["ratio_quartiles"] == [3.0, 27.0]
    assert found["slow"]["ms"] == pytest.approx(400.0)
    assert found["slow"]["flips_per_ns"] == pytest.approx(2e-6)
    assert found["base"]["ms"] == pytest.approx(100.0)


def test_every_turn_stands_beside_one_of_the_base_and_the_order_alternates(clock):
    order = []

    def work(name):
        return lambda: (order.append(name), 1.0)[1]

    makers = {"a": lambda: work("a"), "b": lambda: work("b")}
    timing.take_turns(work("base"), makers, 2, 0)
    assert order[:3] == ["base", "a", "b"]  # everybody once, untimed
    assert order[3:7] == ["base", "a", "base", "b"]
    assert order[7:] == ["b", "base", "a", "base"]


def test_a_missing_or_failing_peer_only_takes_itself_out(clock):
    def missing():
        raise ModuleNotFoundError("No module named 'other'", name="other")

    def unable():
        raise timing.Skipped("not on this CPU")

    calls = []

    def tires():
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("tired")
        return 1.0

    makers = {"missing": missing, "unable": unable, "tires": lambda: tires, "well": lambda: float}
    turns = timing.take_turns(lambda: 1.0, makers, 3, 0)
    assert list(turns.pairs) == ["well"]
    assert turns.skipped["missing"].startswith("skipped: other is not installed (pip install")
    assert turns.skipped["unable"] == "skipped: not on this CPU"
    assert turns.skipped["tires"] == "failed: ValueError: tired"


def test_slopes_are_exponents():
    sizes = [10, 20, 40, 80]
    assert scaling.slope(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert scaling.slope(sizes, [3.0] * 4) == pytest.approx(0)


# The parts.


@pytest.fixture(scope="module")
def found():
    """All parts that need no processes of their own, at tiny sizes."""
    torch.set_num_threads(1)
    return run.measure(TINY, ("sweep", "epoch", "ais", "single", "scaling"))


def test_each_contest_has_our_row_the_bare_products_and_every_installed_peer(found):
    installed = set(peers.versions())
    assert "scikit-learn" in installed
    for part, asked in {
        "sweep": {p.name for p in peers.PEERS}, "epoch": {p.name for p in peers.PEERS},
        "ais": {"rbms"}, "single": set(),
    }.items():  # fmt: skip
        rows = found[part]["rows"]
        assert {"gibbsian", "bare products"} | (asked & installed) <= set(rows), found[part]
        assert all(row["ratio"] > 0 for row in rows.values())
        printed = "\n".join(table.lines(found[part]))
        assert all(name in printed for name in rows)
    assert {"scikit-learn, float32", "scikit-learn, float64"} <= set(found["single"]["rows"])
    assert not run.broken(found)


def test_log_z_of_the_annealing_contest_is_that_of_enumeration(found):
    exact = evaluators.log_z(ours.machine(TINY))
    betas = torch.linspace(0, 1, TINY.temperatures + 1).tolist()
    reference = contests.independent(ours.machine(TINY))
    one = evaluators.ais(ours.machine(TINY), reference, TINY.ais_chains, betas)
    assert found["ais"]["log_z"]["gibbsian"] == pytest.approx(exact, abs=4 * one.standard_error)
    if "rbms" in peers.versions():
        assert found["ais"]["log_z"]["agree"]
        assert found["ais"]["log_z"]["rbms"] == pytest.approx(exact, abs=4 * one.standard_error)


def test_estimates_that_differ_do_not_agree():
    machine = ours.machine(TINY)
    estimate = evaluators.ais(machine, contests.independent(machine), 50, 50)
    right, error = estimate.log_z, estimate.standard_error
    assert contests._agreement([estimate], [right])["log_z"]["agree"]
    assert not contests._agreement([estimate], [right + 7 * error + 0.02])["log_z"]["agree"]


def test_growth_has_a_slope_for_each_axis(found):
    assert set(found["scaling"]["figures"]) == {"chains", "visible", "hidden"}
    assert [p["size"] for p in found["scaling"]["points"]["chains"]] == [20, 40]


# What is written.


def test_results_are_stored_with_the_machine_and_drawn(found, tmp_path):
    run.store(found, tmp_path / "found.json", tmp_path / "found.png")
    again = json.loads((tmp_path / "found.json").read_text())
    assert again["machine"]["versions"]["gibbsian"] == gb.__version__
    assert again["sizes"]["visible"] == TINY.visible
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert not picture.draw({k: again[k] for k in ("machine", "sizes")}, tmp_path / "none.png")


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ([], ["results.json", "picture.png"]),
        (["--only", "sweep"], []),
        (["--only", "sweep", "--out", "here.json"], ["here.json", "here.png"]),
    ],
)
def test_files_are_written_where_they_are_wanted(arguments, written, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(run, "PICTURE", tmp_path / "picture.png")
    monkeypatch.setattr(run, "measure", lambda *_: dict(found))
    monkeypatch.setattr(run, "limit_threads", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        run.main(arguments)
    assert ended.value.code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(written)


def test_a_failure_of_ours_fails_the_run_and_one_of_a_peer_does_not():
    assert run.broken({"sweep": {"skipped": {"gibbsian": "failed: ValueError: no"}}}) == ["sweep"]
    assert run.broken({"memory": {"skipped": {"memory": "failed: OSError: no"}}}) == ["memory"]
    fine = {
        "rbms": "failed: ValueError: no",
        "gibbsian, bf16": "skipped: this CPU is not made for bfloat16",
    }
    assert not run.broken({"sweep": {"skipped": fine}})


@pytest.mark.slow
def test_memory_and_first_uses_are_measured_in_processes_of_their_own():
    found = run.measure(TINY, ("memory", "compile"))
    assert not run.broken(found), found
    for cache in ("cold cache", "warm cache"):
        memory, first = (found[part]["figures"][cache] for part in ("memory", "compile"))
        assert memory["peak"] >= memory["set up"] > 0
        assert memory["parameters"] == pytest.approx(4 * (8 * 6 + 8 + 6) / 1e6)
        assert first["rbm"] > 0
