"""The usual machines under their usual names, and machines to and from files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from gibbsian import units as families
from gibbsian.connections import Dense
from gibbsian.errors import GibbsianError, RunError
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import Bernoulli, Gaussian, ReLU, Softmax, Units

_FORMAT = "gibbsian-machine-1"


def layered(*units: Units) -> BoltzmannMachine:
    """Join layers of units by dense connections, from the visible layer upwards."""
    return BoltzmannMachine(units, [Dense(a.size, b.size) for a, b in pairwise(units)])


def rbm(visible: int | Units, hidden: int | Units) -> BoltzmannMachine:
    """Build a restricted Boltzmann machine (Smolensky 1986).

    E(v, h) = e(v) + e(h) − vᵀ W h. Whole numbers mean that many Bernoulli units.

    Examples
    --------
    >>> import gibbsian as gb
    >>> gb.rbm(visible=784, hidden=500).sizes
    (784, 500)
    """
    return layered(_units(visible), _units(hidden))


def gaussian_rbm(
    visible: int | Units, hidden: int | Units, learn_precision: bool = True
) -> BoltzmannMachine:
    """Build an RBM with Gaussian visible units, v | h ~ N((θ + W h)/γ, 1/γ).

    A whole number for `visible` means Gaussian units, for `hidden` Bernoulli units. With
    ``learn_precision=False`` γ stays as the data set it at the start.
    """
    if not isinstance(visible, Units):
        visible = Gaussian(visible)
        visible.log_precision.requires_grad_(learn_precision)
    return layered(visible, _units(hidden))


def relu_rbm(visible: int | Units, hidden: int | Units) -> BoltzmannMachine:
    """Build an RBM with Gaussian visible and ReLU (exact truncated Gaussian) hidden units.

    Such a machine has a finite Z only while its couplings are small against the precisions
    (`BoltzmannMachine.is_proper`); training keeps it so. Where even the spectral norm of γ_v^−½ W γ_h^−½ is
    below 1, the density of the visible units is log-concave and has one mode: var(h | v) ≤ 1/γ_h, so
    −∇² log p(v) ≥ γ_v − W γ_h⁻¹ Wᵀ > 0. Several modes need units that oppose each other.
    """
    visible = visible if isinstance(visible, Units) else Gaussian(visible)
    return layered(visible, hidden if isinstance(hidden, Units) else ReLU(hidden))


def softmax_rbm(groups: int, categories: int, hidden: int | Units) -> BoltzmannMachine:
    """Build an RBM whose visible layer has `groups` blocks of one-of-`categories` (Potts) units."""
    return layered(Softmax(groups, categories), _units(hidden))


def hopfield(visible: int | Units, hidden: int) -> BoltzmannMachine:
    """Build a Hopfield model with `hidden` patterns.

    The hidden units are Gaussian of fixed mean 0 and variance 1. Summing them out gives
    e(v) − ½ Σ_μ (w_μ·v)², Hopfield's (1982) energy with patterns w_μ (Barra et al. 2012).
    """
    return layered(_units(visible), Gaussian(hidden, learn=False))


def dbm(visible: int | Units, hidden: int | Units | Sequence[int | Units]) -> BoltzmannMachine:
    """Build a deep Boltzmann machine (Salakhutdinov & Hinton 2009), of any depth and any units.

    E(v, h¹, …, h^L) = e(v) + Σ_l e(h^l) − vᵀ W¹ h¹ − Σ_l h^lᵀ W^{l+1} h^{l+1}. Whole numbers mean that many
    Bernoulli units. With one hidden layer, given as a number or as a list, it is exactly the RBM.

    Raises
    ------
    GibbsianError
        If there is no hidden layer, or a size is none.

    Examples
    --------
    >>> import gibbsian as gb
    >>> gb.dbm(visible=784, hidden=[500, 1000]).sizes
    (784, 500, 1000)
    """
    many = isinstance(hidden, Iterable) and not isinstance(hidden, str | Units)
    layers: list[Any] = list(hidden) if many else [hidden]  # type: ignore[arg-type]
    if not layers:
        raise GibbsianError(
            "A deep Boltzmann machine needs at least one hidden layer; give its sizes, such as [500, 1000]."
        )
    return layered(_units(visible), *(_units(h) for h in layers))


def _units(units: int | Units) -> Units:
    return units if isinstance(units, Units) else Bernoulli(units)


def from_spec(spec: Mapping[str, Any]) -> BoltzmannMachine:
    """Build the machine that `BoltzmannMachine.spec` described, with parameters at their start.

    Raises
    ------
    GibbsianError
        If the description names a kind or a parameter that does not exist, or lacks a part.
    """
    missing = sorted({"units", "connections"} - set(spec))
    if missing:
        raise GibbsianError(f"The description of a machine lacks its {' and '.join(missing)}.")
    kinds = set(spec["connections"]) - {Dense.__name__}
    if kinds:
        raise GibbsianError(f"There is no connection called {sorted(kinds)[0]!r}; known: Dense.")
    machine = layered(*(families.from_spec(u) for u in spec["units"]))
    if "fixed" in spec:
        named = dict(machine.named_parameters())
        unknown = sorted(set(spec["fixed"]) - set(named))
        if unknown:
            raise GibbsianError(f"The machine has no parameter {unknown[0]!r} to hold fixed.")
        for name, p in named.items():
            p.requires_grad_(name not in spec["fixed"])
    dtype = getattr(torch, str(spec.get("dtype", "float32")), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise GibbsianError(
            f"There are no machines of the type {spec['dtype']!r}; known: float32, float64."
        )
    return machine.to(dtype)


def save(machine: BoltzmannMachine, path: str | Path) -> None:
    """Write a machine to one safetensors file; its description travels in the header.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {k: t.detach().contiguous() for k, t in machine.state_dict().items()}
    header = {"format": _FORMAT, "machine": json.dumps(machine.spec())}
    try:
        save_file(tensors, str(path), metadata=header)
    except (OSError, SafetensorError) as error:
        raise RunError(f"The machine could not be written to {path}: {error}.") from None


def read(path: str | Path) -> BoltzmannMachine:
    """Read a machine that `save` wrote.

    Raises
    ------
    RunError
        If the file is missing, damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise RunError(f"There is no machine file {path}; give a file that gibbsian.save wrote.")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is not a readable machine file: {error}.") from None
    if header.get("format") != _FORMAT:
        raise RunError(f"{path} holds no gibbsian machine; give a file that gibbsian.save wrote.")
    try:
        machine = from_spec(json.loads(header["machine"]))
        kind = next(iter(tensors.values())).dtype
        machine.to(kind).load_state_dict(tensors)
    except (GibbsianError, KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        raise RunError(
            f"{path} describes a machine that does not fit its parameters; save it anew ({error})."
        ) from None
    return machine
