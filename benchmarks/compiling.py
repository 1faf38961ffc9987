"""First use of the CPU kernels: what the first draw of a process costs beyond the second.

Each process imports torch and gibbsian, and then draws each layer twice. With a cold cache kernels are
compiled, with a warm one they are found on disk. What the first draw has to import counts as its cost.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.probe import fresh
from benchmarks.sizes import Sizes


def compiling(sizes: Sizes, threads: int) -> dict[str, Any]:
    """Time first draws in fresh processes: no compiled kernels on disk, then with those just made."""
    shape = sizes.visible, sizes.hidden, sizes.ais_chains
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = (
            fresh("benchmarks.compiling", *shape, cache=Path(folder), threads=threads)
            for _ in range(2)
        )
    return {
        "title": "First use of the CPU kernels in a process (seconds beyond a second draw)",
        "figures": {
            "cold cache": {"rbm": cold["rbm"], "every family": cold["every family"]},
            "warm cache": {"rbm": warm["rbm"], "every family": warm["every family"]},
        },
        "notes": [
            f"with a {k} cache the draws import {', '.join(found['imported']) or 'nothing'}"
            for k, found in (("cold", cold), ("warm", warm))
        ],
    }  # fmt: skip


def _first_uses(visible: int, hidden: int, rows: int) -> dict[str, Any]:
    """Return the seconds of first draws in this process."""
    import torch  # noqa: F401  the clock starts after it

    import gibbsian as gb

    before = set(sys.modules)
    found: dict[str, Any] = {"rbm": _beyond(gb.rbm(visible, hidden).layers, rows)}
    families = gb.Spin, gb.Gaussian, gb.ReLU, gb.Binomial
    others = [family(visible) for family in families] + [gb.Softmax(visible // 4 or 1, 4)]
    found["every family"] = found["rbm"] + _beyond(others, rows)
    new = set(sys.modules) - before
    found["imported"] = [m for m in ("numba", "llvmlite") if m in new]
    return found


def _beyond(layers: Any, rows: int) -> float:
    """Sum over layers what the first draw takes beyond the second."""
    import torch

    generator, total = torch.Generator().manual_seed(0), 0.0
    for units in layers:
        field, times = torch.zeros(rows, units.size), []
        for _ in range(2):
            begin = time.perf_counter()
            with torch.no_grad():
                units.sample(field, generator)
            times.append(time.perf_counter() - begin)
        total += times[0] - times[1]
    return total


if __name__ == "__main__":
    print(json.dumps(_first_uses(*(int(a) for a in sys.argv[1:4]))))
