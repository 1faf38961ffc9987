"""What is measured while a machine is trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from gibbsian.evaluators import (
    cross_entropy,
    free_energy_gap,
    pseudo_likelihood_one_bit,
    reconstruction_error,
)  # fmt: skip
from gibbsian.machine import BoltzmannMachine


def measure(
    machine: BoltzmannMachine, rows: Mapping[str, Tensor], generator: Generator
) -> dict[str, Any]:
    """Return reconstruction error and cross-entropy, pseudo-likelihood, free-energy gap, and norms.

    `rows` are fixed rows by split name. Each metric that has a value per split is a table of them;
    metrics that a unit family does not have are left out. Lower is better but for the
    pseudo-likelihood, which is in nats per row.
    """
    record: dict[str, Any] = {}
    with torch.no_grad():
        for split, x in rows.items():
            for name, value in _of_rows(machine, x, generator).items():
                record.setdefault(name, {})[split] = value
        if len(machine.layers) == 2 and "validation" in rows and "train" in rows:
            record["free_energy_gap"] = float(
                free_energy_gap(machine, rows["train"], rows["validation"])
            )
        record["weight_norm"] = float(torch.stack([c.weight.norm() for c in machine.joints]).norm())
    return record


def _of_rows(machine: BoltzmannMachine, x: Tensor, generator: Generator) -> dict[str, float]:
    out = {"reconstruction_error": float(reconstruction_error(machine, x))}
    finite = all(b is not None for b in machine.layers[0].domain.blocks())
    if finite:
        out["cross_entropy"] = float(cross_entropy(machine, x))
        if len(machine.layers) == 2:
            out["pseudo_likelihood"] = float(pseudo_likelihood_one_bit(machine, x, generator))
    return out
