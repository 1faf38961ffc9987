"""One step down the gradient: the short way of plain SGD against the optimiser itself."""

import subprocess
import sys

import pytest
import torch

import gibbsian as gb
from gibbsian.descent import Descent
from gibbsian.training import Trainer

MACHINES = {
    "bernoulli": lambda: gb.rbm(64, 9),
    "hopfield": lambda: gb.hopfield(64, 5),
    "deep": lambda: gb.layered(gb.units.Bernoulli(64), gb.units.Spin(7), gb.units.Bernoulli(4)),
}


def _trained(make, monkeypatch, short: bool, **settings) -> tuple[Trainer, int]:
    """Train for a few updates; return the trainer and how often it took the short way."""
    taken = []
    go = Descent._go_straight

    def counted(self, *args):
        taken.append(1)
        go(self, *args)

    monkeypatch.setattr(Descent, "_go_straight", counted)
    if not short:
        monkeypatch.setattr(Descent, "_is_straight", lambda self: False)
    data = gb.data.load("digits", transform="threshold")
    chosen = gb.Settings(**{"updates": 12, "batch_size": 20, "lr": 0.2, **settings})
    trainer = Trainer(make(), data, gb.PCD(chains=15), chosen)
    trainer.fit()
    return trainer, len(taken)


@pytest.mark.parametrize(
    "settings", [{}, {"schedule": "linear"}, {"l2": 0.01}, {"whiten": 0.1}], ids=str
)
@pytest.mark.parametrize("name", MACHINES)
def test_the_short_way_is_the_optimisers(name, settings, monkeypatch):
    found, taken = _trained(MACHINES[name], monkeypatch, True, **settings)
    monkeypatch.undo()
    truth, none = _trained(MACHINES[name], monkeypatch, False, **settings)
    assert (taken, none) == (12, 0)
    pairs = zip(found.machine.named_parameters(), truth.machine.parameters(), strict=True)
    for (k, a), b in pairs:
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=lambda m, k=k: f"{k}: {m}")
    assert bool((found.machine.joints[0].weight != 0).any())


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam"},
        {"optimizer_options": {"momentum": 0.5}},
        {"optimizer_options": {"weight_decay": 0.1}},
        {"optimizer_options": {"maximize": True}},
        {"center": False},
    ],
    ids=str,
)
def test_other_steps_are_the_optimisers_own(settings, monkeypatch):
    assert _trained(MACHINES["bernoulli"], monkeypatch, True, **settings)[1] == 0


def test_machines_with_limits_or_learned_precisions_take_the_optimisers_step(monkeypatch):
    def make():
        return gb.gaussian_rbm(64, 5)

    assert _trained(make, monkeypatch, True, lr=1e-3)[1] == 0


def test_plain_training_does_not_import_the_compiler():
    """It would take seconds and 70 MB, and nothing uses it."""
    code = """
import sys, warnings, gibbsian as gb
warnings.simplefilter("error", UserWarning)
data = gb.data.load("digits", transform="threshold")
gb.train(gb.rbm(64, 5), data, updates=3, schedule="linear", progress=False)
assert "torch._dynamo" not in sys.modules
gb.train(gb.rbm(64, 5), data, updates=3, optimizer="adam", progress=False)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
