"""Trajectory tempering against the listed distribution at every level; and trajectories on disk."""

import errno
import importlib
import os
import shutil

import pytest
import torch
from command_line import call
from test_machine import pair, small_machine
from test_tempering import MACHINES, _reference, _strong
from torch import Generator

import gibbsian as gb
from gibbsian import checkpoint, models, testing
from gibbsian.callbacks import Callback
from gibbsian.errors import GibbsianError, GibbsianWarning, RunError
from gibbsian.evaluators import ladder_log_z, log_z
from gibbsian.machine import Clamp
from gibbsian.recorder import TrajectoryRecorder
from gibbsian.samplers import Gibbs, TrajectoryTempering, ladder, run, sample
from gibbsian.samplers.replica import levels_of
from gibbsian.testing.agreement import Agreement
from gibbsian.testing.samplers import compare_states
from gibbsian.trajectory import Trajectory, between, same
from gibbsian.units import Bernoulli


def _trajectory(machine, places=(0.3, 0.7)) -> Trajectory:
    """Machines between a reference away from the machine and the machine; one is off the straight line."""
    base = _reference(machine)
    found = [base, *(between(base, machine, t) for t in places)]
    with torch.no_grad():
        found[1].layers[0].get_parameter(
            next(iter(dict(found[1].layers[0].named_parameters())))
        ).add_(0.1)
    return Trajectory(tuple(found), tuple(range(len(found))))


# The distribution, at every level.


@pytest.mark.parametrize("name", MACHINES)
def test_the_top_level_is_the_machine(name):
    machine = MACHINES[name]()
    sampler = TrajectoryTempering(_trajectory(machine))
    testing.check_sampler(sampler, machine, chains=2500, steps=12)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "three layers"])
def test_every_level_is_its_machine(name):
    machine = MACHINES[name]()
    trajectory, chains, generator = _trajectory(machine), 3000, Generator().manual_seed(1)
    sampler = TrajectoryTempering(trajectory, sweeps=2)
    begin = machine.layers[0].domain.noise(chains, generator).double()
    state = sampler.init(machine, begin, generator)
    state, _ = run(sampler, machine, state, 12, generator)
    for k, at in enumerate((*trajectory.machines, machine)):
        agreement = Agreement()
        rows = tuple(s[k * chains : (k + 1) * chains] for s in levels_of(state))
        compare_states(agreement, at, testing.enumerate_states(at), rows)
        assert agreement.p_value > 1e-6


class Wrong(TrajectoryTempering):
    """Swaps see another Δ."""

    factor = -1

    def _swap(self, levels, rows, fields, generator):
        right = levels.compare
        levels.compare = lambda *a: (lambda g, f: (self.factor * g, f))(*right(*a))
        return ladder.exchange(levels, rows, fields, generator)


class Always(Wrong):
    """Every swap is accepted."""

    factor = 0


class KeepsFields(TrajectoryTempering):
    """Rows take along the fields of the level that they left."""

    def _swap(self, levels, rows, fields, generator):
        right = levels.compare
        levels.compare = lambda *a: (right(*a)[0], {i: f.clone() for i, f in fields.items()})
        return ladder.exchange(levels, rows, fields, generator)


@pytest.mark.parametrize("wrong", [Wrong, Always, KeepsFields])
def test_wrong_swaps_are_found(wrong):
    machine = MACHINES["spin"]()
    with pytest.raises(AssertionError):
        sampler = wrong(_trajectory(machine))
        testing.check_distribution(sampler, machine, chains=3000, steps=12)


def test_held_visible_units_and_single_precision():
    machine = MACHINES["softmax"]()
    width = machine.layers[0].domain.widths[0]
    mask = torch.zeros(machine.sizes[0], dtype=torch.bool)
    mask[:width] = True
    value = machine.layers[0].domain.noise(1, Generator().manual_seed(5))[0].double()
    sampler = TrajectoryTempering(_trajectory(machine))
    testing.check_sampler(sampler, machine, clamps={0: Clamp(mask, value)}, chains=2500, steps=12)
    testing.check_sampler(sampler, machine.float(), chains=2500, steps=10)
    odd = Clamp(torch.ones(machine.sizes[1], dtype=torch.bool), torch.ones(machine.sizes[1]))
    with pytest.raises(GibbsianError, match=r"even layers only, and layer 1 is odd.*\.$"):
        sample(machine, 5, 5, clamp={1: odd}, sampler=sampler)


def test_it_crosses_where_gibbs_does_not():
    machine = _strong()
    trajectory = _trajectory(machine, (0.1, 0.2, 0.3, 0.4, 0.6, 0.8))
    flips = []
    for sampler in (Gibbs(), TrajectoryTempering(trajectory)):
        generator, kept = Generator().manual_seed(2), []
        state = sampler.init(machine, -torch.ones(40, 8).double(), generator)
        _, info = run(sampler, machine, state, 60, generator,
                      visit=lambda i, s, _, kept=kept: kept.append(s.layers[0].sum(1)))  # fmt: skip
        flips.append(int((torch.stack(kept).sign().diff(dim=0).abs() == 2).sum()))
    assert flips[0] <= 1 and flips[1] > 60
    assert int(info.diagnostics["round_trips"].sum()) > 40
    assert info.diagnostics["acceptance"].shape == (7,)


@pytest.mark.parametrize("tilt", [0.0, 1.0])
def test_a_machine_on_the_way_that_lost_a_cluster_blocks_it_and_round_trips_tell(tilt):
    """The top has both clusters; one machine below it has them e^16 apart where it is tilted."""
    machine = _strong()
    trajectory = _trajectory(machine, (0.1, 0.2, 0.3, 0.4, 0.6, 0.8))
    with torch.no_grad():
        trajectory.machines[-1].layers[0].get_parameter("bias").add_(tilt)
    sampler, generator = TrajectoryTempering(trajectory), Generator().manual_seed(2)
    state = sampler.init(machine, -torch.ones(60, 8).double(), generator)
    state, info = run(sampler, machine, state, 200, generator)
    still = float((info.diagnostics["round_trips"] == 0).double().mean())
    up = float((state.layers[0].sum(1) > 0).double().mean())
    # Chains that began in the other cluster: about none have left it, and their ladders say so.
    assert (still < 0.2 and up > 0.15) if tilt == 0 else (still > 0.9 and up < 0.1)


def test_the_last_machine_is_no_level_of_its_own_twice():
    machine = MACHINES["bernoulli"]()
    trajectory = _trajectory(machine).to(machine)
    assert len(trajectory) == 4 == len(trajectory.to(machine))
    generator = Generator().manual_seed(0)
    state = TrajectoryTempering(trajectory).init(machine, torch.ones(2, 3).double(), generator)
    assert len(state.extra["replica"]) == 4


# log Z.


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "three layers"])
def test_log_z_of_every_machine_is_the_listed_one(name):
    machine = MACHINES[name]()
    trajectory = _trajectory(machine)
    found = ladder_log_z(machine, trajectory, 60, steps=60, generator=1, burn=15)
    truth = [testing.enumerate_states(m).log_z for m in (*trajectory.machines, machine)]
    assert abs(found.log_z - truth[-1]) < 4.5 * found.standard_error + 1e-4
    assert found.log_zs.tolist() == pytest.approx(truth, abs=0.15)
    assert found.log_zs[0] == pytest.approx(trajectory.log_z0(), abs=1e-9)
    assert found.updates == (0, 1, 2, 3) and found.betas == () and found.standard_error < 0.15
    assert found.as_dict()["log_zs"] == found.log_zs.tolist()
    with pytest.raises(GibbsianError, match=r"levels of a trajectory are its machines.*\.$"):
        ladder_log_z(machine, trajectory, levels=3)


# Refined.


def test_a_sparse_trajectory_is_refined_and_a_dense_one_thinned():
    machine = testing.perturbed(models.rbm(30, 20), 1.0, seed=1)
    base = _reference(machine)
    for places in ((), [k / 60 for k in range(1, 60)]):
        sparse = Trajectory((base, *(between(base, machine, t) for t in places), machine),
                            tuple(range(len(places) + 2)))  # fmt: skip
        refined = sparse.refined(generator=0)
        assert 4 < len(refined) < 20
        assert refined.machines[0] is base and same(refined.machines[-1], machine)
        sampler, generator, told = TrajectoryTempering(refined), Generator().manual_seed(0), []
        state = sampler.init(machine, torch.zeros(60, 30).double(), generator)
        run(sampler, machine, state, 40, generator,
            visit=lambda i, s, info, told=told: told.append(info.diagnostics["acceptance"]))  # fmt: skip
        rates = torch.stack(told[10:]).mean(dim=0)
        assert float(rates.min()) > 0.15 and float(rates.max()) < 0.6


def test_machines_between_have_interpolated_natural_parameters():
    low, high = (pair("gaussian", "bernoulli") for _ in range(2))
    with torch.no_grad():
        low.layers[0].get_parameter("log_precision").fill_(0.0)
        high.layers[0].get_parameter("log_precision").fill_(torch.tensor(3.0).log())
        low.joints[0].weight.zero_()
    half = between(low, high, 0.5)
    precision = half.layers[0].get_parameter("log_precision").exp()
    torch.testing.assert_close(precision, torch.full_like(precision, 2.0))
    torch.testing.assert_close(half.joints[0].weight, high.joints[0].weight / 2)


# What is refused.


def test_impossible_trajectories_are_refused_in_one_sentence():
    base, other, coupled = models.rbm(3, 2), models.rbm(3, 3), models.rbm(3, 2)
    with torch.no_grad():
        coupled.joints[0].weight.fill_(1.0)
        base.joints[0].weight.zero_(), other.joints[0].weight.zero_()
    broken = between(base, coupled, 0.5)
    with torch.no_grad():
        broken.joints[0].weight.fill_(torch.nan)
    cases = [
        (lambda: Trajectory((), ()), "one machine or more"),
        (lambda: Trajectory((base, coupled), (0, 0)), "rise"),
        (lambda: Trajectory((base, coupled), (5, 2)), "rise"),
        (lambda: Trajectory((base, coupled), (0, float("nan"))), "finite number"),
        (lambda: Trajectory((base, other), (0, 1)), "or their units differ"),
        (lambda: Trajectory((coupled,), (0,)), "has couplings"),
        (lambda: Trajectory((base, broken), (0, 1)), "not finite"),
        (lambda: Trajectory((base,), (0,)).to(other), "or their units differ"),
        (lambda: Trajectory((base,), (0,)).refined(), "nothing to refine"),
        (lambda: Trajectory((base, coupled), (0, 1)).refined(1.5), "between 0 and 1"),
        (lambda: TrajectoryTempering([base]), "takes a trajectory"),
        (lambda: sample(other, 2, 2, sampler=TrajectoryTempering(Trajectory((base,), (0,)))), "differ"),
        (lambda: TrajectoryRecorder(2), "at least 3"),
        (lambda: TrajectoryRecorder(acceptance=1), "between 0 and 1"),
        (lambda: gb.train(models.rbm(40, 4), _rows(), updates=2, progress=False, save_trajectory=True),
         "out="),
    ]  # fmt: skip
    for act, words in cases:
        with pytest.raises(GibbsianError, match=words) as caught:
            act()
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


# On disk.


def _rows() -> torch.Tensor:
    """Four kinds of rows, which a machine has to learn to tell apart."""
    generator = Generator().manual_seed(4)
    kinds = torch.rand(4, 40, generator=generator) < 0.5
    flips = torch.rand(80, 40, generator=generator) < 0.05
    return (kinds[torch.arange(80) % 4] != flips).float()


class StopAt(Callback):
    """What stands for a killed process."""

    def on_update(self, trainer):
        if trainer.step == 220:
            raise KeyError


def _train(folder, method=None, **options):
    options = {"save_trajectory": True, "lr": 0.3} | options
    return gb.train(
        gb.rbm(40, 10), _rows(), method or gb.PCD(chains=50), out=folder, updates=300, batch_size=20,
        seed=0, progress=False, checkpoint_every=100, log_every=100, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run by PCD that kept its trajectory; nobody writes into it."""
    return _train(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("method", [None, gb.CD()])
def test_a_run_keeps_its_trajectory_and_trains_as_without(tmp_path, whole_run, method):
    found = _train(tmp_path / "a", method) if method else whole_run
    plain = _train(tmp_path / "b", method, save_trajectory=False)
    ours, theirs = found.machine.state_dict(), plain.machine.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    trajectory = gb.trajectory.load(found)
    assert 3 <= len(trajectory) <= 12 and trajectory.updates[0] == 0
    assert not trajectory.machines[0].joints[0].weight.any()
    with pytest.raises(RunError, match=r"holds no trajectory.*\.$"):
        gb.trajectory.load(tmp_path / "b")
    whole = trajectory.to(found.machine).refined(generator=0)
    out = ladder_log_z(found.machine, whole, 60, steps=100, generator=0)
    assert abs(out.log_z - log_z(found.machine)) < 4.5 * out.standard_error + 1e-3
    assert float(out.acceptance.min()) > 0.1
    assert len(gb.trajectory.load(found, until=1)) == 1


def test_a_run_resumes_with_its_trajectory(tmp_path, whole_run):
    with pytest.raises(KeyError):
        _train(tmp_path / "cut", callbacks=[StopAt()])
    gb.resume(tmp_path / "cut", _rows(), progress=False)
    whole, cut = gb.trajectory.load(whole_run), gb.trajectory.load(tmp_path / "cut")
    assert whole.updates == cut.updates
    assert all(same(a, b) for a, b in zip(whole.machines, cut.machines, strict=True))
    gb.resume(tmp_path / "cut", _rows(), progress=False, checkpoint=100)
    again = gb.trajectory.load(tmp_path / "cut")
    assert again.updates == whole.updates


@pytest.mark.parametrize("sampler", ["trajectory", "transitions"])
def test_the_command_line_certifies_along_it(sampler, tmp_path, monkeypatch):
    """The compared chains are those of the sampler that was named."""
    module = importlib.import_module("gibbsian.evaluators.evaluate")
    seen, real = [], module.run_chains

    def watched(*args, **kwargs):
        seen.append(type(kwargs["sampler"]).__name__)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "run_chains", watched)
    options = ["bars-and-stripes", "--hidden", 5, "--updates", 40, "--log-every", 40, "-q"]
    assert not call("train", *options, "--out", tmp_path / "run", "--save-trajectory").code
    quick = ["--temperatures", 10, "--chains", 10, "--mixing-steps", 40, "--ladder-steps", 10]
    for command in ("evaluate", "report"):
        found = call(command, tmp_path / "run", "--sampler", sampler, *quick)
        assert not found.code and "Certificate" in found.out
    kind = {"trajectory": "TrajectoryTempering", "transitions": "TemperedTransitions"}[sampler]
    assert seen == [kind] * 2


def test_the_command_line_samples_along_it(tmp_path):
    options = ["bars-and-stripes", "--hidden", 5, "--updates", 40, "--log-every", 40, "-q"]
    run, out = tmp_path / "run", tmp_path / "x.npz"
    assert not call("train", *options, "--out", run, "--save-trajectory").code
    found = call("sample", run, "-n", 5, "--steps", 3, "--sampler", "trajectory", "--out", out)
    assert not found.code and "Wrote 5 samples" in found.out and out.is_file()
    assert not call("train", *options, "--out", tmp_path / "b").code
    refused = call("sample", tmp_path / "b", "--sampler", "trajectory", "--out", out)
    assert "holds no trajectory" in refused.sentence
    more = ["--sampler", "trajectory", "--sampler-option", "sweeps=2"]
    assert not call("sample", run, "-n", 5, "--steps", 3, *more, "--out", out).code
    both = call("train", *options, "--out", tmp_path / "c", "--trajectory-limit", 5)
    assert "give both" in both.sentence


def test_the_limit_bounds_what_is_kept(tmp_path, whole_run):
    found = _train(tmp_path / "run", trajectory_limit=3)
    everything = gb.trajectory.load(whole_run)
    kept = gb.trajectory.load(found)
    assert len(kept) == 3 < len(everything)
    assert {kept.updates[0], kept.updates[-1]} == {0, everything.updates[-1]}
    assert set(kept.updates) < set(everything.updates)
    assert len(os.listdir(tmp_path / "run" / "trajectory")) == 6


def test_the_machine_with_the_nearest_neighbours_goes(tmp_path):
    recorder = TrajectoryRecorder(4)
    recorder.saved = {0: 0.0, 10: 1.0, 20: 1.4, 30: 2.5, 40: 4.0}

    class Stub:
        class run:
            trajectory_folder = tmp_path

    recorder._thin(Stub())
    assert sorted(recorder.saved) == [0, 20, 30, 40]


def test_a_full_disk_is_one_warning_and_nothing_is_lost(tmp_path, monkeypatch):
    right, refused = checkpoint.write, []

    def write(folder, step, tree, **options):
        if folder.name == "trajectory" and 0 < step < 100:
            refused.append(step)
            raise RunError(f"cannot write {folder}: {os.strerror(errno.ENOSPC)}.")
        return right(folder, step, tree, **options)

    monkeypatch.setattr(checkpoint, "write", write)
    with pytest.warns(GibbsianWarning, match="training goes on: cannot write") as told:
        found = _train(tmp_path / "run")
    assert len(told) == 1 and len(refused) > 1
    assert found.step == 300
    trajectory = gb.trajectory.load(found)
    assert trajectory.updates[0] == 0 and trajectory.updates[1] >= 100


def test_a_damaged_file_and_one_of_another_run_are_refused(tmp_path, whole_run):
    shutil.copytree(whole_run.run.path, run_a := tmp_path / "a")
    path = next((tmp_path / "a" / "trajectory").glob("step-000000000-*"))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(RunError, match=r"damaged.*\.$"):
        gb.trajectory.load(run_a)
    checkpoint.write(tmp_path / "a" / "trajectory", 0, {"machine": dict(gb.rbm(2, 2).state_dict())})
    with pytest.raises(RunError, match=r"no machine of the run.*\.$"):
        gb.trajectory.load(run_a)


def test_within_pcd():
    machine = small_machine(Bernoulli(3), Bernoulli(2), seed=2)
    method = gb.PCD(steps=12, chains=3000, sampler=TrajectoryTempering(_trajectory(machine)))
    generator, x = Generator().manual_seed(0), torch.ones(3, 3).double()
    chains = method.init(machine, x, generator)
    with torch.no_grad():
        machine.joints[0].weight.mul_(-1)
    phases = method.step(machine, x, chains, generator)
    table = testing.enumerate_states(machine)
    truth = machine.mean_statistics(table.states, None, table.probabilities)
    for k in ("connections.0.weight", "units.0.bias", "units.1.bias"):
        torch.testing.assert_close(phases.negative[k], truth[k].detach(), atol=0.04, rtol=0)


def test_a_limit_without_a_trajectory_is_refused_on_the_command_line():
    from gibbsian.cli.configuration import merged

    with pytest.raises(GibbsianError, match=r"give both\.$"):
        merged(None, {"trajectory_limit": 5}, "digits")
    assert merged(None, {"save_trajectory": True}, "digits")["settings"]["save_trajectory"] is True
