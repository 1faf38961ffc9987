"""The training loop: recipes learn, runs resume, and what goes wrong is said in one sentence."""

import math
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch

import gibbsian as gb
from gibbsian import runs
from gibbsian.callbacks import Callback
from gibbsian.errors import GibbsianWarning
from gibbsian.estimators import Phases
from gibbsian.evaluators import exact
from gibbsian.finite import warn_of_size
from gibbsian.regularizers import Penalty
from gibbsian.training import Trainer


def bars(rows: int = 400) -> gb.data.Dataset:
    return gb.data.load(f"bars-and-stripes:n=3,rows={rows}", seed=1)


def quick(machine=None, **options):
    options = {
        "updates": 60,
        "batch_size": 20,
        "progress": False,
        "seed": 3,
        "log_every": 30,
    } | options
    data = options.pop("data", None)
    return gb.train(machine or gb.rbm(9, 6), data or bars(), **options)


def test_training_learns_bars_and_stripes() -> None:
    data = bars(2000)
    result = quick(gb.rbm(9, 16), data=data, updates=3000, lr=0.2, batch_size=100)
    rows = data.test.tensor()
    machine = result.machine
    found = -machine.free_energy(rows).mean() - exact.log_z(machine)
    entropy = math.log(14)  # 2·2³ − 2 patterns, equally frequent
    assert found > -entropy - 0.25
    untrained = gb.rbm(9, 16)
    assert -untrained.free_energy(rows).mean() - exact.log_z(untrained) < -entropy - 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adamw"])
def test_every_optimizer_raises_the_likelihood(optimizer: str) -> None:
    lr = 0.5 if optimizer == "sgd" else 0.05
    data = bars()
    result = quick(gb.rbm(9, 8), data=data, updates=600, lr=lr, optimizer=optimizer, average=0.99)
    rows = data.train.tensor()
    start = quick(gb.rbm(9, 8), data=data, updates=1, lr=1e-9).machine

    def likelihood(machine: gb.BoltzmannMachine) -> float:
        return float(-machine.free_energy(rows).detach().mean()) - float(exact.log_z(machine))

    assert likelihood(result.machine) > likelihood(start) + 1


@pytest.mark.parametrize(
    "machine, transform",
    [
        (lambda: gb.rbm(gb.Spin(9), 5), ["threshold", "spin"]),
        (lambda: gb.gaussian_rbm(9, 5), "standardise"),
        (lambda: gb.relu_rbm(9, 5), "standardise"),
        (lambda: gb.hopfield(9, 3), "threshold"),
        (lambda: gb.rbm(9, gb.Binomial(4, 3)), "threshold"),
        (lambda: gb.layered(gb.Bernoulli(9), gb.Bernoulli(6), gb.Bernoulli(4)), "threshold"),
        (lambda: gb.rbm(gb.Mixed([gb.Gaussian(4), gb.Bernoulli(5)]), 4), "identity"),
    ],
)
@pytest.mark.parametrize("method", [gb.CD(steps=2), gb.PCD(steps=2, chains=17)])
def test_any_units_train(machine, transform, method) -> None:
    data = gb.data.load("bars-and-stripes:n=3,rows=200", transform=transform)
    model = machine()
    result = quick(model, data=data, method=method, lr=0.01)
    assert all(bool(torch.isfinite(p).all()) for p in result.machine.parameters())
    assert result.machine.is_proper()
    moved = result.last.joints[0].weight
    assert float(moved.norm()) > 0


def test_hopfield_hidden_layer_stays_standard_normal() -> None:
    result = quick(gb.hopfield(9, 3))
    hidden = result.last.layers[1]
    assert torch.equal(hidden.bias, torch.zeros(3))
    assert torch.equal(hidden.log_precision, torch.zeros(3))


def test_same_seed_same_run_and_other_seed_other_run() -> None:
    """`--seed` that changes nothing."""
    first, again, other = quick(seed=5), quick(seed=5), quick(seed=6)
    weights = [r.machine.joints[0].weight for r in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_metrics_do_not_disturb_training() -> None:
    rare, often = quick(log_every=60), quick(log_every=3)
    assert torch.equal(rare.machine.joints[0].weight, often.machine.joints[0].weight)
    assert len(often.history) == 20


@pytest.mark.parametrize("decay", [0.9, 0.999])
def test_average_is_the_polyak_average_of_the_iterates(decay: float) -> None:
    """A long average takes in every fourth iterate only, and is the same to what these differ by."""
    seen: list[torch.Tensor] = []

    class Keep(Callback):
        def on_update(self, trainer: Trainer) -> None:
            seen.append(trainer.machine.joints[0].weight.detach().clone())

    updates = 20 if decay == 0.9 else 602
    result = quick(updates=updates, average=decay, callbacks=[Keep()])
    average = quick(updates=1, lr=1e-12).last.joints[0].weight.detach()
    for t, weight in enumerate(seen, 1):
        now = min(decay, (1 + t) / (10 + t))
        average = now * average + (1 - now) * weight
    found = result.machine.joints[0].weight.detach()
    if decay == 0.9:
        torch.testing.assert_close(found, average, atol=1e-6, rtol=0)
    else:
        moved = seen[-1] - seen[-68]  # within its memory
        assert float((found - average).norm()) < 0.05 * float(moved.norm())
    plain = quick(updates=20, average=0.0)
    assert torch.equal(plain.machine.joints[0].weight, plain.last.joints[0].weight)


def test_learning_rate_follows_the_schedule_and_is_the_groups_own() -> None:
    """Layer-wise learning rate never reset."""
    result = quick(updates=100, log_every=1, lr=0.1)
    rates = [r["lr"] for r in result.history]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert rates[59] == pytest.approx(0.1 * (100 - 60) / 80)
    again = quick(updates=100, log_every=1, lr=0.1)
    assert [r["lr"] for r in again.history] == rates


def test_restarts_of_chains_fall_with_the_learning_rate() -> None:
    """Chains restart less and less, so that those of the last updates are old enough for equilibrium."""
    paces = []

    class Watched(gb.PCD):
        def _restart(self, machine, chains, generator):
            paces.append(self.pace)
            return super()._restart(machine, chains, generator)

    quick(updates=100, lr=0.1, method=Watched(chains=10, refresh=0.5))
    assert paces[:20] == [1.0] * 20
    assert paces[60] == pytest.approx((100 - 60) / 80)
    assert paces[-1] == pytest.approx(1 / 80)

    machine, ones = gb.rbm(2, 1), gb.samplers.ChainState((torch.ones(2000, 2), torch.ones(2000, 1)))
    for pace in (1.0, 0.5, 0.0):
        method = gb.PCD(chains=2000, refresh=0.4)
        method.pace = pace
        moved = method._restart(machine, ones, torch.Generator().manual_seed(0)).layers[0]
        share = float((moved == 0).any(dim=1).float().mean())  # ¾ of noise is not (1, 1)
        assert share == pytest.approx(0.75 * 0.4 * pace, abs=0.04)


def test_sample_weights_equal_repeated_rows() -> None:
    x = torch.tensor([[0.0, 1, 1], [1, 0, 0]])
    machine = gb.rbm(3, 2)
    torch.nn.init.normal_(machine.joints[0].weight, generator=torch.Generator().manual_seed(0))
    weighted = machine.mean_statistics((x,), 1, torch.tensor([3.0, 1.0]))
    repeated = machine.mean_statistics((x[[0, 0, 0, 1]],), 1)
    for name, value in weighted.items():
        torch.testing.assert_close(value, repeated[name])


def test_weights_of_the_data_reach_the_update() -> None:
    rows = (torch.rand(60, 6, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    heavy = torch.where(rows[:, 0] > 0, 50.0, 1.0).numpy()
    means = []
    for weights in (None, heavy):
        data = gb.data.load(rows, transform="identity", weights=weights, validation=0, test=0)
        result = gb.train(
            gb.rbm(6, 2), data, updates=800, batch_size=60, lr=0.1, progress=False, seed=1
        )
        means.append(float(gb.sample(result.machine, 2000, 200).samples[:, 0].mean()))
    assert means[1] > means[0] + 0.3


class Pull(gb.Estimator):
    """Only the data pull: a negative phase of zeros."""

    config: ClassVar = {"kind": "pull"}

    def init(self, machine, data, generator):
        return None

    def step(self, machine, x, chains, generator, weights=None) -> Phases:
        positive = machine.mean_statistics((x,), 1, weights)
        return Phases(positive, {k: torch.zeros_like(t) for k, t in positive.items()}, None)


@pytest.mark.parametrize("center", [True, False])
def test_batches_count_by_what_their_rows_weigh(center: bool) -> None:
    """Over an epoch the updates add up to the weighted mean of all rows, also with batches of weight 0."""
    rows = (np.random.default_rng(0).random((60, 5)) < 0.5).astype(np.float32)
    weights = np.random.default_rng(1).random(60) ** 8
    weights[5:40] = 0
    data = gb.data.load(rows, transform="identity", weights=weights, validation=0, test=0)
    trainer = Trainer(
        gb.rbm(5, 2), data, Pull(),
        gb.Settings(epochs=1, batch_size=3, lr=1e-3, schedule="constant", average=0.0, scale=0.0,
                    center=center),
    )  # fmt: skip
    before = trainer.machine.layers[0].bias.detach().clone()
    trainer.fit()
    moved = trainer.machine.layers[0].bias.detach() - before
    assert all(bool(torch.isfinite(p).all()) for p in trainer.machine.parameters())
    if center:  # then biases make up for what couplings do
        moved = moved + (trainer.machine.joints[0].weight @ trainer.offsets[1]).detach()
    truth = torch.from_numpy(weights @ rows / weights.sum()).float()
    torch.testing.assert_close(moved, 20 * 1e-3 * truth, rtol=1e-2, atol=1e-5)


def test_penalties_shrink_the_couplings() -> None:
    free, held = quick(updates=300, lr=0.1), quick(updates=300, lr=0.1, l2=0.5)
    sparse = quick(updates=300, lr=0.1, l1=0.1)
    norm = free.last.joints[0].weight.norm()
    assert held.last.joints[0].weight.norm() < 0.5 * norm
    assert sparse.last.joints[0].weight.abs().sum() < 0.5 * free.last.joints[0].weight.abs().sum()


def test_the_priors_gradient_is_that_of_its_log_density() -> None:
    """Of Student's t with two degrees of freedom, by PyTorch's distribution and autograd."""
    machine = gb.rbm(5, 4)
    weight = machine.joints[0].weight
    with torch.no_grad():
        weight.normal_(0, 1, generator=torch.Generator().manual_seed(0))
    law = torch.distributions.StudentT(2.0, 0.0, 0.3)
    (truth,) = torch.autograd.grad(-law.log_prob(weight).sum() / 50, weight)
    found = {k: torch.zeros_like(p) for k, p in machine.named_parameters()}
    Penalty(prior_scale=0.3, rows=50).add(machine, found, times=4)
    torch.testing.assert_close(found["connections.0.weight"], 4 * truth)
    assert all(not bool(g.any()) for k, g in found.items() if k.startswith("units."))


def test_a_prior_pulls_small_couplings_as_l2_does_and_leaves_large_ones() -> None:
    machine = gb.rbm(2, 1)
    with torch.no_grad():
        machine.joints[0].weight.copy_(torch.tensor([[0.001], [3.0]]))
    pulls = []
    for penalty in (Penalty(prior_scale=0.1, rows=500), Penalty(l2=3 / (500 * 2 * 0.1**2))):
        found = {k: torch.zeros_like(p) for k, p in machine.named_parameters()}
        penalty.add(machine, found)
        pulls.append(found["connections.0.weight"].flatten())
    small, large = (pulls[0] / pulls[1]).tolist()
    assert small == pytest.approx(1, abs=1e-3)
    assert large == pytest.approx(0.02 / 9.02)


def test_a_penalty_that_holds_everything_at_0_is_told() -> None:
    with pytest.warns(gb.GibbsianWarning, match="held all couplings at 0"):
        quick(updates=1000, lr=0.1, prior_scale=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error", gb.GibbsianWarning)
        quick(updates=1000, lr=0.1, prior_scale=1.0)
        quick(updates=20, lr=0.1)


def test_early_stopping_stops_and_says_why() -> None:
    result = quick(
        updates=5000, lr=1e-8, log_every=10, patience=3, tolerance=1e-3,
        monitor="reconstruction_error.validation",
    )  # fmt: skip
    assert result.step < 200


def test_a_metric_that_raises_is_not_swallowed() -> None:
    """A metric that raises swallowed in silence."""

    class Bad(Callback):
        def on_metrics(self, trainer: Trainer, record: dict) -> None:
            raise RuntimeError("the metric failed")

    with pytest.raises(RuntimeError, match="the metric failed"):
        quick(callbacks=[Bad()])


@pytest.mark.parametrize("center", [True, False])
def test_non_finite_parameters_stop_the_run_by_name(tmp_path, center: bool) -> None:
    """Non-finite loss replaced by a constant; NaNs in long training."""

    class Poison(Callback):
        def on_update(self, trainer: Trainer) -> None:
            if trainer.step == 33:
                with torch.no_grad():
                    trainer.machine.joints[0].weight[0, 0] = math.nan

    with pytest.raises(gb.TrainingError, match=r"connections\.0\.weight .*update 3[45]"):
        quick(
            out=tmp_path / "run", callbacks=[Poison()], checkpoint_every=10, center=center,
            log_every=1000, keep_last=10,
        )  # fmt: skip
    survivor = gb.load(tmp_path / "run")
    assert survivor.step == 30
    assert bool(torch.isfinite(survivor.machine.joints[0].weight).all())


def test_absurd_learning_rate_ends_in_a_sentence_or_finite_numbers(tmp_path) -> None:
    """Assertion at lr 0.1."""
    data = gb.data.load(torch.randn(200, 5, generator=torch.Generator().manual_seed(0)))
    try:
        result = quick(gb.gaussian_rbm(5, 4), data=data, lr=1e30, updates=50)
    except gb.TrainingError as error:
        assert "finite" in str(error)
    else:
        assert bool(torch.isfinite(result.machine.joints[0].weight).all())


class _Stop(Exception):
    pass


class _StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_update(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise _Stop


def equal_runs(a: gb.Trained, b: gb.Trained) -> bool:
    first = runs.open_run(a.run.path).checkpoint().tree
    second = runs.open_run(b.run.path).checkpoint().tree
    return _same(first, second)


def _same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", [gb.CD(), gb.PCD(steps=2, chains=13)])
def test_resume_equals_the_uninterrupted_run(tmp_path, optimizer, method) -> None:
    """Resumed RNG lost."""
    options = {"method": method, "optimizer": optimizer, "lr": 0.01, "checkpoint_every": 7,
               "log_every": 5, "data": gb.data.load("digits", limit=150)}  # fmt: skip
    whole = quick(gb.rbm(64, 6), out=tmp_path / "whole", **options)
    with pytest.raises(_Stop):
        quick(gb.rbm(64, 6), out=tmp_path / "cut", callbacks=[_StopAt(40)], **options)
    torch.manual_seed(99)  # global state must not matter
    resumed = gb.resume(tmp_path / "cut", progress=False)
    assert equal_runs(whole, resumed)
    stripped = [
        [{k: v for k, v in r.items() if k != "time"} for r in t.run.metrics()]
        for t in (whole, resumed)
    ]
    assert stripped[0] == stripped[1]


_SCRIPT = """
import sys, gibbsian as gb
gb.train(gb.gaussian_rbm(64, 10), gb.data.load("digits", transform=["standardise", "dequantise"]),
         gb.PCD(chains=20), updates=400, batch_size=50, lr=0.005, checkpoint_every=9, log_every=11,
         seed=4, threads=1, progress=False, out=sys.argv[1])
"""


@pytest.mark.slow
def test_resume_after_kill_9_at_a_random_moment(tmp_path) -> None:
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    command = [sys.executable, "-c", _SCRIPT]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment)
    process = subprocess.Popen([*command, str(tmp_path / "cut")], env=environment)
    folder = tmp_path / "cut" / "checkpoints"
    wanted = random.Random(7).randint(2, 20)
    deadline = time.time() + 60
    while time.time() < deadline and process.poll() is None:
        if folder.is_dir() and max(map(_number, folder.glob("*.json")), default=0) >= 9 * wanted:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    gb.resume(tmp_path / "cut", progress=False)
    whole, resumed = gb.load(tmp_path / "whole"), gb.load(tmp_path / "cut")
    assert resumed.step == 400
    assert equal_runs(whole, resumed)


def _number(path) -> int:
    digits = "".join(c for c in path.stem if c.isdigit())
    return int(digits or 0)


def test_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path) -> None:
    quick(out=tmp_path / "run", checkpoint_every=20)
    (newest,) = (tmp_path / "run" / "checkpoints").glob("*60-*.safetensors")
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    with pytest.warns(gb.GibbsianWarning, match=newest.name):
        survivor = gb.load(tmp_path / "run")
    assert survivor.step == 40


def test_resume_refuses_other_settings_and_other_data(tmp_path) -> None:
    rows = (torch.rand(100, 9, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    quick(out=tmp_path / "run", data=gb.data.load(rows))
    with pytest.raises(gb.RunError, match="training setting"):
        quick(out=tmp_path / "run", data=gb.data.load(rows), resume=True, lr=0.3)
    with pytest.raises(gb.RunError, match="array in memory"):
        gb.resume(tmp_path / "run", progress=False)
    with pytest.raises((gb.RunError, gb.DataError)):
        gb.resume(tmp_path / "run", data=1 - rows, progress=False)
    assert gb.resume(tmp_path / "run", data=rows, progress=False).step == 60


def test_a_run_that_is_there_is_not_overwritten_unasked(tmp_path) -> None:
    quick(out=tmp_path / "run")
    with pytest.raises(gb.RunError):
        quick(out=tmp_path / "run")
    assert quick(out=tmp_path / "run", overwrite=True, updates=7).step == 7


def test_functions_as_optimizer_and_scheduler(tmp_path) -> None:
    def adam(groups):
        return torch.optim.Adam(groups, betas=(0.5, 0.9))

    def cosine(optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)

    result = quick(out=tmp_path / "run", optimizer=adam, schedule=cosine, lr=0.01)
    assert result.history[-1]["lr"] == pytest.approx(0.0, abs=1e-8)
    with pytest.raises(gb.RunError, match="given as a function"):
        gb.resume(tmp_path / "run", progress=False)
    again = gb.resume(tmp_path / "run", progress=False, optimizer=adam, schedule=cosine)
    assert again.step == 60


def test_optimizer_with_a_state_that_needs_pickling_is_refused() -> None:
    class Odd(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                self.state[group["params"][0]]["secret"] = object()

    with pytest.raises(gb.TrainingError, match="object"):
        quick(optimizer=lambda groups: Odd(groups, lr=0.1))


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"optimizer": "sdg"}, "no optimiser"),
        ({"optimizer": "lbfgs"}, "no optimiser"),
        ({"optimizer": "sgd", "optimizer_options": {"momentun": 0.9}}, "refuses its options"),
        ({"schedule": "linea"}, "no schedule"),
        ({"schedule_options": {"hold": -1.0}}, "takes"),
        ({"lr": -1.0}, "learning rate"),
        ({"lr": math.nan}, "learning rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"updates": 0}, "updates"),
        ({"updates": 5, "epochs": 5}, "not as both"),
        ({"average": 1.0}, "average"),
        ({"weights": "gloroot"}, "Weights start"),
        ({"scale": -1.0}, "scale"),
        ({"biases": {"0": [1.0, 2.0]}}, "bias of layer 0"),
        ({"biases": {"7": 1.0}}, "no layer 7"),
        ({"l1": -0.1}, "Penalties"),
        ({"prior_scale": -0.1}, "prior_scale must be 0 or positive"),
        ({"prior_scale": math.inf}, "prior_scale"),
        ({"prior_scale": 0.01, "lr": 0.1}, "too small for 320 rows .* at least 0.022"),
        ({"l2": {"conections.*": 0.1}}, "No learned parameter matches"),
        ({"patience": 2, "monitor": "nonsense"}, "nonsense"),
        ({"learning_rate": 0.1}, "no training setting"),
    ],
)
def test_impossible_settings_get_one_sentence(options, sentence: str) -> None:
    with pytest.raises(gb.GibbsianError, match=sentence) as caught:
        quick(**options)
    assert str(caught.value).count("\n") == 0


def test_bad_counts_and_memory() -> None:
    with pytest.raises(gb.GibbsianError, match=r"hidden|Bernoulli"):
        gb.rbm(9, 0)
    with pytest.raises(gb.TrainingError, match="steps"):
        gb.PCD(steps=0)
    with pytest.raises(gb.TrainingError, match="chains"):
        gb.PCD(chains=0)
    with pytest.raises(gb.TrainingError, match=r"GiB.*fewer chains"):
        quick(method=gb.PCD(chains=10**12))


def test_data_outside_the_domain_are_refused_with_a_transform() -> None:
    data = gb.data.load(torch.randn(50, 9), transform="identity")
    with pytest.raises(gb.DataError, match="transform"):
        quick(data=data)


def test_wrong_width_is_refused() -> None:
    with pytest.raises(gb.DataError, match="9"):
        quick(gb.rbm(8, 3))


@pytest.mark.filterwarnings("ignore::gibbsian.GibbsianWarning")
def test_constant_columns_train_with_a_bounded_precision() -> None:
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    rows[:, 2] = 1.5
    data = gb.data.load(rows, transform="identity")
    with pytest.warns(gb.GibbsianWarning, match="constant"):
        result = quick(gb.gaussian_rbm(4, 3), data=data, updates=300)
    sigma0 = result.machine.layers[0].domain.sigma0
    assert float(result.machine.layers[0].log_precision[2].exp()) <= 1.0001 / sigma0**2
    with pytest.raises(gb.DataError, match="sigma0"):
        quick(gb.rbm(gb.Gaussian(4, sigma0=0.0), 3), data=data)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.uint8, np.bool_])
def test_any_number_type_trains(kind) -> None:
    """float64 or uint8 input refused with a dtype error."""
    rows = (np.random.default_rng(0).random((80, 5)) < 0.4).astype(kind)
    if kind is np.uint8:
        rows = rows * 255
    result = gb.train(gb.rbm(5, 3), rows, updates=10, batch_size=10, progress=False)
    assert result.step == 10


def test_pca_and_glorot_starts_keep_the_data_means() -> None:
    data = gb.data.load("digits", transform="threshold")
    rows = data.train.tensor()
    for weights in ("pca", "glorot", "normal"):
        result = quick(gb.rbm(64, 30), data=data, updates=1, lr=1e-9, weights=weights, average=0.0)
        state = gb.samplers.start(result.last, 4000, "reference", torch.Generator(), rows)
        assert abs(float(state.mean() - rows.mean())) < 0.02
    pca = quick(gb.rbm(64, 30), data=data, updates=1, lr=1e-9, weights="pca", average=0.0)
    fields = rows @ pca.last.joints[0].weight.detach()[:, :5]
    assert torch.allclose(fields.std(dim=0), torch.ones(5), atol=0.15)


def test_a_pca_start_of_a_mixed_layer_is_that_of_a_plain_one() -> None:
    data = gb.data.load("digits", transform="threshold")
    options = {"data": data, "updates": 1, "lr": 1e-9, "weights": "pca", "average": 0.0}
    plain = quick(gb.rbm(64, 10), **options).last
    halves = gb.Mixed([gb.Bernoulli(30), gb.Bernoulli(34)])
    mixed = quick(gb.rbm(halves, gb.Mixed([gb.Bernoulli(4), gb.Bernoulli(6)])), **options).last
    for layer in (0, 1):
        found = torch.cat([m.bias for m in mixed.layers[layer].members])
        torch.testing.assert_close(found, plain.layers[layer].bias, atol=1e-4, rtol=1e-4)


def test_reference_of_a_result_matches_the_data() -> None:
    data = bars(1000)
    result = quick(data=data)
    bias = result.reference.layers[0].bias
    assert torch.allclose(torch.sigmoid(bias), data.train.tensor().mean(dim=0), atol=0.01)
    assert float(result.reference.joints[0].weight.abs().max()) == 0


def test_tensorboard_gets_scalars_and_pictures(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    data = gb.data.load("digits", limit=100)
    quick(gb.rbm(64, 5), data=data, tensorboard=tmp_path / "board", log_every=30)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert "reconstruction_error/validation" in events.Tags()["scalars"]
    assert {"samples", "filters"} <= set(events.Tags()["images"])


def test_couplings_that_blow_up_are_told():
    x = (torch.rand(50, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    with pytest.warns(GibbsianWarning, match="couplings have grown to .* blown up"):
        gb.train(gb.rbm(6, 4), x, updates=5, lr=1e4, progress=False)
    # Those of Gaussian units are as large as their precision asks.
    machine = gb.gaussian_rbm(6, 4)
    with torch.no_grad():
        machine.joints[0].weight.fill_(1e3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_size(machine)
