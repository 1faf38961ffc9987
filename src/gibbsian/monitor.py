"""What is measured while a machine is trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from gibbsian.evaluators import (
    free_energy_gap,
    reconstruction,
    stochastic_pseudo_likelihood,
)
from gibbsian.machine import BoltzmannMachine

# Random blocks a row in the pseudo-likelihood, which scatters by nats all the same: `generator` should
# start alike for every record, so that the blocks are the same ones and only the machine differs.
_DRAWS = 2


def measure(
    machine: BoltzmannMachine, rows: Mapping[str, Tensor], generator: Generator
) -> dict[str, Any]:
    """Return reconstruction error and cross-entropy, pseudo-likelihood, free-energy gap, weight norm.

    `rows` are fixed rows by split name. Metrics that have a value for each split are tables of them;
    those that a machine does not have are left out. The reconstruction error is squared, per column;
    cross-entropy and pseudo-likelihood (from a few random blocks a row) are in nats per row.
    """
    record: dict[str, Any] = {}
    shallow = len(machine.layers) == 2
    states = all(_are_states(machine, x) for x in rows.values())
    with torch.no_grad():
        for split, x in rows.items():
            found = reconstruction(machine, x)
            record.setdefault("reconstruction_error", {})[split] = found.squared_error
            record.setdefault("cross_entropy", {})[split] = found.cross_entropy
            if shallow and states:
                values = [
                    float(stochastic_pseudo_likelihood(machine, x, generator).mean())
                    for _ in range(_DRAWS)
                ]
                record.setdefault("pseudo_likelihood", {})[split] = sum(values) / _DRAWS
        if shallow and {"train", "validation"} <= set(rows):
            gap = free_energy_gap(machine, rows["train"], rows["validation"])
            record["free_energy_gap"] = gap
        record["weight_norm"] = float(torch.stack([c.weight.norm() for c in machine.joints]).norm())
    return record


def _are_states(machine: BoltzmannMachine, x: Tensor) -> bool:
    """Tell whether the pseudo-likelihood of these rows is worth its time: no rates, no real columns.

    Rates are means of states and have none; real columns need a quadrature each.
    """
    blocks = machine.layers[0].domain.blocks()
    if any(table is None for table in blocks):
        return False
    # Equal blocks share one table, so this loop runs once a family.
    families = {id(table): table for table in blocks if table is not None}
    owner = [id(t) for t, width in zip(blocks, machine.layers[0].domain.widths, strict=True)
             for _ in range(width)]  # fmt: skip
    for key, table in families.items():
        columns = torch.tensor([o == key for o in owner], device=x.device)
        if not bool(torch.isin(x[:, columns], table.unique().to(x)).all()):
            return False
    return True
