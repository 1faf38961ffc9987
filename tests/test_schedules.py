"""Named schedules against their formulas."""

import pytest
import torch

import gibbsian as gb
from gibbsian import schedules


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("constant", {}, {0: 1, 50: 1, 100: 1}),
        ("linear", {}, {0: 1, 20: 1, 60: 0.5, 100: 0}),
        ("linear", {"hold": 0.0, "final": 0.1}, {0: 1, 50: 0.55, 100: 0.1}),
        ("step", {}, {0: 1, 24: 1, 25: 0.5, 75: 0.125}),
        ("exponential", {}, {0: 1, 50: 0.1, 100: 0.01}),
        ("power", {"coefficient": 0.1}, {0: 1, 10: 0.5, 90: 0.1}),
    ],
)
def test_factor(name: str, options: dict, expected: dict) -> None:
    factor = schedules.SCHEDULES[name](100, **options)
    for t, value in expected.items():
        assert factor(t) == pytest.approx(value)


def test_scheduler_state_is_numbers_and_resumes() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = schedules.build("linear", {"hold": 0.0}, optimizer, 10)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    state = scheduler.state_dict()
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    resumed = schedules.build("linear", {"hold": 0.0}, other, 10)
    resumed.load_state_dict(state)
    other.load_state_dict(optimizer.state_dict())
    other.step()
    resumed.step()
    assert resumed.get_last_lr() == [pytest.approx(0.4 * 0.4)]


@pytest.mark.parametrize(
    "name, options", [("linear", {"hodl": 1.0}), ("linear", {"hold": float("nan")}), ("lin", {})]
)
def test_bad_schedule_is_refused(name: str, options: dict) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    with pytest.raises(gb.TrainingError):
        schedules.build(name, options, optimizer, 10)
