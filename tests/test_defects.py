"""What goes wrong in other packages, by name: each has a test here, or one that is named here.

The list is what was seen when they were run; of it, the noise of Langevin samplers is not this version's.
"""

import math
from pathlib import Path

import pytest
import torch

import gibbsian as gb
from gibbsian import optimizers
from gibbsian.training import Trainer

# For each defect where its test is, if that stands with others of its kind.
ELSEWHERE = {
    "Gaussian visibles without noise": "test_gaussian_visibles_are_noised_with_the_right_variance",
    "variance used as std": "test_gaussian_visibles_are_noised_with_the_right_variance",
    "PCD chains started at sigmoid(mean)": "test_pcd_chains_start_at_states_not_at_rates",
    "a metric that raises swallowed in silence": "test_a_metric_that_raises_is_not_swallowed",
    "--test_dataset reading the train file": "test_test_dataset_reading_the_train_file",
    "CLI that exits 0 on failure": "test_train_refuses",
    "--seed that changes nothing": "test_same_seed_same_run_and_other_seed_other_run",
    "a resume whose split leaks test rows": "test_a_resume_whose_split_leaks_test_rows_into_training",
    "log rewritten whole at every step": "test_the_log_is_appended_to_and_never_rewritten",
    "whole-object pickles": "test_source_never_unpickles",
    "float64 or uint8 input refused with a dtype error": "test_any_number_type_trains",
    "importance weights multiplied in linear space": "test_importance_weights_multiplied_in_linear_space",
    "free energy in float32 overflow": "test_free_energy_in_float32_overflow",
    "non-finite loss replaced by a constant": "test_non_finite_parameters_stop_the_run_by_name",
    "resumed RNG lost": "test_resume_equals_the_uninterrupted_run",
}


@pytest.mark.parametrize("defect", ELSEWHERE)
def test_there_is_a_test_of(defect: str) -> None:
    texts = (p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    assert any(f"\ndef {ELSEWHERE[defect]}(" in text for text in texts)


def test_energies_averaged_instead_of_summed() -> None:
    """Twice the columns have twice the energy, for every family and for couplings."""
    for one, two, value in [
        (gb.Gaussian(1, mean=0.5), gb.Gaussian(2, mean=0.5), 3.0),
        (gb.ReLU(1), gb.ReLU(2), 3.0),
        (gb.Bernoulli(1), gb.Bernoulli(2), 1.0),
        (gb.Spin(1), gb.Spin(2), -1.0),
        (gb.Binomial(1, 3), gb.Binomial(2, 3), 2.0),
    ]:
        found = []
        for units in (one, two):
            machine = gb.layered(units, gb.Bernoulli(1))
            with torch.no_grad():
                machine.joints[0].weight.fill_(0.7)
                units.bias.add_(0.3)
            state = torch.full((1, units.size), value), torch.ones(1, 1)
            found.append(float(machine.energy(state).detach()))
        assert found[1] == pytest.approx(2 * found[0])
    # The free energy of independent columns is the sum of theirs, with its normaliser.
    gaussian = gb.layered(gb.Gaussian(3, precision=4.0), gb.Bernoulli(2))
    free = float(gaussian.free_energy(torch.full((1, 3), 0.5)).detach())
    assert free == pytest.approx(3 * 0.5 * 4 * 0.25 - 2 * math.log(2))


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "radam"])
def test_adam_without_bias_correction(name: str, center: bool) -> None:
    """The first step of Adam has the size of the learning rate in every coupling; without the
    correction of its moments it would be 0.1/√0.001 = 3.2 times as large."""
    data = gb.data.load("digits", limit=100, transform="threshold")
    options = {"weight_decay": 0.0} if name == "adamw" else {}
    machine = gb.rbm(64, 5)
    steps = []

    class First(gb.callbacks.Callback):
        def on_start(self, trainer: Trainer) -> None:
            steps.append(trainer.machine.joints[0].weight.detach().clone())

    gb.train(machine, data, updates=1, lr=0.01, optimizer=name, optimizer_options=options,
             center=center, progress=False, callbacks=[First()])  # fmt: skip
    moved = (machine.joints[0].weight.detach() - steps[0]).abs()
    moved = moved[moved > 1e-6]
    assert len(moved) > 100
    if name in ("adam", "adamw"):
        assert float((moved - 0.01).abs().median()) < 1e-4
    assert float(moved.max()) < 0.025


def test_layer_wise_learning_rate_never_reset() -> None:
    """A second training, and a second parameter group, begin at their own full rate."""
    data = gb.data.load("digits", limit=100)
    for _ in range(2):
        result = gb.train(gb.rbm(64, 5), data, updates=20, lr=0.1, log_every=1, progress=False)
        assert result.history[0]["lr"] == pytest.approx(0.1)
    machine = gb.gaussian_rbm(8, 3)
    rows = gb.data.load(torch.randn(100, 8, generator=torch.Generator().manual_seed(0)))
    trainer = Trainer(
        machine, rows, gb.CD(), gb.Settings(updates=10, lr=0.2, precision_lr=0.25, batch_size=20)
    )
    assert [g["lr"] for g in trainer.optimizer.param_groups] == pytest.approx([0.2, 0.05])
    trainer.fit()
    assert [g["lr"] for g in trainer.optimizer.param_groups] == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimiser_by_name_trains_or_says_why_not(name: str, tmp_path) -> None:
    data = gb.data.load("digits", limit=100)
    options = {"updates": 12, "lr": 0.01, "optimizer": name, "batch_size": 20, "progress": False}
    try:
        whole = gb.train(gb.rbm(64, 5), data, **options, out=tmp_path / "run", checkpoint_every=7)
    except gb.TrainingError as error:
        assert name == "muon" and "2D" in str(error)
        return
    run = whole.run
    gb.checkpoint.drop(run.checkpoint_folder, 12)
    again = gb.resume(tmp_path / "run", progress=False)
    for (k, a), b in zip(whole.last.named_parameters(), again.last.parameters(), strict=True):
        assert torch.equal(a, b), k
