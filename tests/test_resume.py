"""A resumed run equals the uninterrupted one bit for bit, whatever state a feature keeps."""

import os
import signal

import numpy as np
import pytest
import torch

import gibbsian as gb
from gibbsian import runs
from gibbsian.callbacks import Callback, EarlyStopping
from gibbsian.checkpoint import steps
from gibbsian.estimators import Phases
from gibbsian.samplers import ChainState, Info
from gibbsian.training import Trainer


class Stop(Exception):
    """What stands for a killed process."""


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_update(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise Stop


class Counting(Callback):
    """A callback with memory."""

    def __init__(self) -> None:
        self.updates = 0

    def on_update(self, trainer: Trainer) -> None:
        self.updates += 1

    def state_dict(self) -> dict:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]


class Counted(gb.Sampler):
    """Block Gibbs that knows how often it stepped."""

    def init(self, machine, visible, generator, clamps=None):
        state = gb.Gibbs().init(machine, visible, generator, clamps)
        return ChainState(state.layers, {"steps": torch.zeros(())})

    def step(self, machine, state, generator, clamps=None) -> tuple[ChainState, Info]:
        after, info = gb.Gibbs().step(machine, state, generator, clamps)
        return ChainState(after.layers, {"steps": state.extra["steps"] + 1}), info


def digits(**options) -> gb.data.Dataset:
    return gb.data.load("digits", limit=150, **options)


def train(out, machine=None, **options) -> gb.Trained:
    options = {
        "updates": 60, "batch_size": 20, "progress": False, "seed": 3, "lr": 0.02,
        "checkpoint_every": 7, "log_every": 5, "data": None,
    } | options  # fmt: skip
    data = options.pop("data") or digits()
    return gb.train(machine or gb.rbm(64, 6), data, out=out, **options)


def state_of(path) -> dict:
    return runs.open_run(path).checkpoint().tree


def records_of(path) -> list[dict]:
    return [{k: v for k, v in r.items() if k != "time"} for r in runs.open_run(path).metrics()]


def differences(a, b, where: str = "") -> list[str]:
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [where]
        return [d for k in a for d in differences(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [where]
        return [d for i, x in enumerate(a) for d in differences(x, b[i], f"{where}.{i}")]
    return [] if a == b else [where]


def assert_equal_runs(a, b) -> None:
    assert differences(state_of(a), state_of(b)) == []
    assert records_of(a) == records_of(b)


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=60)


def momentum(groups):
    return torch.optim.SGD(groups, momentum=0.9)


class Streamed:
    """Rows in a file, read a block at a time."""

    def __init__(self, folder) -> None:
        path = folder / "rows.npy"
        if not path.exists():
            rng = np.random.default_rng(0)
            np.save(path, (rng.random((300, 64)) * 255).astype(np.uint8))
        self.data = gb.data.load(path, in_memory=False)
        assert not self.data.train.in_memory


FEATURES = {
    "early stopping that waits": {"patience": 50, "tolerance": 1e9},
    "refresh": {"method": gb.PCD(chains=9, refresh=0.2)},
    "options of a sampler": {
        "method": gb.PCD(chains=9, sampler="driven", sampler_options={"steps": 40})
    },
    "fast weights of sampled rows": {
        "method": gb.PCD(chains=9, sampler="rates", sampler_options={"statistics": "sampled"})
    },
    "cd": {"method": gb.CD(steps=2)},
    "average and offsets": {"average": 0.95, "offset_rate": 0.1},
    "no centring": {"center": False, "l1": 0.001, "l2": {"connections.*": 0.01}},
    "adam": {"optimizer": "adam"},
    "whitening": {"whiten": 0.1, "l2": 0.01},
    "optimiser given as a function": {"optimizer": momentum},
    "scheduler given as a function": {"schedule": one_cycle, "optimizer": momentum},
    "several epochs": {"updates": None, "epochs": 9, "log_epochs": 2, "log_every": None},
}


def functions(options: dict) -> dict:
    return {k: v for k, v in options.items() if callable(v)}


@pytest.mark.parametrize("name", FEATURES)
def test_resume_keeps_the_state_of(name: str, tmp_path) -> None:
    """An epoch has 7 updates here, and so has the time between checkpoints: 21 ends both."""
    options = FEATURES[name]
    train(tmp_path / "whole", **options)
    whole = state_of(tmp_path / "whole")
    for cut in (21, 31):
        with pytest.raises(Stop):
            train(tmp_path / str(cut), callbacks=[StopAt(cut)], **options)
        torch.manual_seed(99)  # global state must not matter
        gb.resume(tmp_path / str(cut), progress=False, **functions(options))
        resumed = state_of(tmp_path / str(cut))
        assert resumed["callbacks"].pop("StopAt", {}) == {}  # the callback that cut it
        assert differences(whole, resumed) == []
        assert records_of(tmp_path / "whole") == records_of(tmp_path / str(cut))


def test_resume_keeps_the_directions_that_keep_a_machine_proper(tmp_path) -> None:
    data = digits(transform="standardise-global")
    options = {"data": data, "lr": 0.2, "method": gb.PCD(chains=20)}
    with pytest.warns(gb.GibbsianWarning, match="held back"):
        train(tmp_path / "whole", gb.relu_rbm(64, 6), **options)
    with pytest.raises(Stop), pytest.warns(gb.GibbsianWarning):
        train(tmp_path / "cut", gb.relu_rbm(64, 6), callbacks=[StopAt(40)], **options)
    assert state_of(tmp_path / "cut")["keeper"] is not None
    with pytest.warns(gb.GibbsianWarning):
        gb.resume(tmp_path / "cut", progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_resume_keeps_double_precision(tmp_path) -> None:
    train(tmp_path / "whole", gb.rbm(64, 6).double())
    with pytest.raises(Stop):
        train(tmp_path / "cut", gb.rbm(64, 6).double(), callbacks=[StopAt(31)])
    gb.resume(tmp_path / "cut", progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")
    assert gb.load(tmp_path / "cut").machine.joints[0].weight.dtype == torch.float64


def test_resume_of_streamed_rows(tmp_path) -> None:
    data = Streamed(tmp_path).data
    train(tmp_path / "whole", data=data)
    with pytest.raises(Stop):
        train(tmp_path / "cut", data=data, callbacks=[StopAt(25)])
    gb.resume(tmp_path / "cut", progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_resume_twice(tmp_path) -> None:
    train(tmp_path / "whole")
    with pytest.raises(Stop):
        train(tmp_path / "cut", callbacks=[StopAt(17)])
    with pytest.raises(Stop):
        gb.resume(tmp_path / "cut", progress=False, callbacks=[StopAt(45)])
    gb.resume(tmp_path / "cut", progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_resume_of_a_finished_run_changes_nothing(tmp_path) -> None:
    train(tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    again = gb.resume(tmp_path / "run", progress=False)
    assert again.step == 60
    after = {p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert before == after


def test_resume_of_a_run_that_stopped_early_leaves_it_stopped(tmp_path) -> None:
    result = train(tmp_path / "run", updates=5000, lr=1e-8, patience=3, tolerance=1e-3)
    assert result.step == 20
    records = records_of(tmp_path / "run")
    again = gb.resume(tmp_path / "run", progress=False)
    assert again.step == 20
    assert records_of(tmp_path / "run") == records


def test_a_run_cut_while_early_stopping_waits_stops_at_the_same_update(tmp_path) -> None:
    options = {"updates": 5000, "lr": 1e-8, "patience": 6, "tolerance": 1e-3}
    whole = train(tmp_path / "whole", **options)
    with pytest.raises(Stop):
        train(tmp_path / "cut", callbacks=[StopAt(22)], **options)
    resumed = gb.resume(tmp_path / "cut", progress=False)
    assert resumed.step == whole.step == 35
    assert records_of(tmp_path / "whole") == records_of(tmp_path / "cut")


def test_resume_where_no_checkpoint_was_written_yet(tmp_path) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "cut", updates=60)
    for step in steps(tmp_path / "cut" / "checkpoints"):
        for path in (tmp_path / "cut" / "checkpoints").glob(f"step-{step:09d}*"):
            path.unlink()
    (tmp_path / "cut" / "metrics.jsonl").write_bytes(b"")
    gb.resume(tmp_path / "cut", progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_is_being_trained_is_not_resumed(tmp_path) -> None:
    train(tmp_path / "run")
    with runs.open_run(tmp_path / "run") as other:
        other.lock()
        with pytest.raises(gb.RunError, match="is being trained by process"):
            gb.resume(tmp_path / "run", progress=False)


def test_callbacks_of_one_class_keep_their_memories_apart(tmp_path) -> None:
    with pytest.raises(Stop):
        train(tmp_path / "run", callbacks=[Counting(), StopAt(30), Counting()])
    kept = state_of(tmp_path / "run")["callbacks"]
    assert kept["Counting"] == {"updates": 28}
    first, second = Counting(), Counting()
    second.updates = 5
    gb.resume(tmp_path / "run", progress=False, callbacks=[first, second])
    assert (first.updates, second.updates) == (60, 60)


def test_two_early_stoppings_do_not_share_a_memory(tmp_path) -> None:
    other = EarlyStopping("cross_entropy.train", patience=100)
    train(tmp_path / "run", patience=50, callbacks=[other])
    kept = state_of(tmp_path / "run")["callbacks"]
    assert len([k for k in kept if k.startswith("EarlyStopping")]) == 2
    bests = {v["best"] for k, v in kept.items() if k.startswith("EarlyStopping")}
    assert len(bests) == 2


class Interrupting(gb.PCD):
    """PCD during whose 33rd update the user presses Ctrl-C, after its chains have moved."""

    updates = 0

    def step(self, machine, x, chains, generator, weights=None) -> Phases:
        phases = super().step(machine, x, chains, generator, weights)
        Interrupting.updates += 1
        if Interrupting.updates == 33:
            os.kill(os.getpid(), signal.SIGINT)
        return phases


def test_ctrl_c_within_an_update_leaves_a_checkpoint_that_resumes_bit_for_bit(tmp_path) -> None:
    Interrupting.updates = 0
    train(tmp_path / "whole", method=gb.PCD())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", method=Interrupting())
    assert state_of(tmp_path / "cut")["step"] == 33
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    gb.resume(tmp_path / "cut", progress=False)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_an_interrupt_at_once_does_not_save_half_an_update(tmp_path) -> None:
    class Twice(Callback):
        def on_update(self, trainer: Trainer) -> None:
            if trainer.step == 30:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", callbacks=[Twice()])
    assert state_of(tmp_path / "run")["step"] == 28


def test_checkpoints_asked_for_are_kept_whatever_the_others_are(tmp_path) -> None:
    result = train(tmp_path / "run", keep_every=25, keep_last=1)
    assert result.run.checkpoints == [0, 25, 50, 60]


def test_a_sampler_of_ones_own_is_asked_for_again(tmp_path) -> None:
    method = gb.PCD(chains=8, sampler=Counted())
    train(tmp_path / "whole", method=method)
    with pytest.raises(Stop):
        train(tmp_path / "cut", method=method, callbacks=[StopAt(30)])
    with pytest.raises(gb.GibbsianError, match=r"sampler was the object Counted.*method="):
        gb.resume(tmp_path / "cut", progress=False)
    with pytest.raises(gb.RunError, match="another method setting \\(sampler\\)"):
        gb.resume(tmp_path / "cut", progress=False, method=gb.PCD(chains=8))
    gb.resume(tmp_path / "cut", progress=False, method=gb.PCD(chains=8, sampler=Counted()))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")
    assert float(state_of(tmp_path / "cut")["chains"]["extra"]["steps"]) == 60


def test_resume_by_train_takes_the_runs_own_threads(tmp_path) -> None:
    train(tmp_path / "run", updates=20)
    torch.set_num_threads(2)
    assert train(tmp_path / "run", updates=20, resume=True).step == 20
    assert torch.get_num_threads() == 1


def test_a_setting_that_differs_is_named(tmp_path) -> None:
    train(tmp_path / "run", updates=20)
    with pytest.raises(gb.RunError, match=r"another training setting \(lr\)"):
        train(tmp_path / "run", updates=20, resume=True, lr=0.3)
    with pytest.raises(gb.RunError, match="resume takes no updates"):
        gb.resume(tmp_path / "run", updates=50)


def test_the_fitted_transform_is_in_the_run(tmp_path) -> None:
    rows = np.random.default_rng(0).normal([5, -3], [2, 9], (100, 2))
    data = gb.data.load(rows)
    train(tmp_path / "run", gb.gaussian_rbm(2, 3), data=data, updates=5)
    loaded = gb.load(tmp_path / "run")  # the array itself is in no file
    assert loaded.transform.names == ["standardise"]
    x = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    torch.testing.assert_close(loaded.transform.inverse(x), data.transform.inverse(x))
    with pytest.raises(gb.RunError, match="array in memory"):
        _ = loaded.data
    again = gb.load(tmp_path / "run", data=rows)
    assert torch.equal(again.data.train.tensor(), data.train.tensor())
    with pytest.raises((gb.RunError, gb.DataError)):
        gb.load(tmp_path / "run", data=rows + 1)
