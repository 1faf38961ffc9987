"""Peak memory of a training run, beyond what it is about.

A fresh process imports torch and numba and compiles one small kernel: what is resident then is the
starting line. It goes on to train an RBM by `gb.train`, with a folder on disk, from rows in a file. The
peak above the line, less data, parameters, optimiser state and chains, is what the library takes.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.sizes import Sizes


def memory(sizes: Sizes, threads: int) -> dict[str, Any]:
    """Measure in fresh processes: one that has to compile the kernels, and one that finds them.

    Raises
    ------
    Skipped
        Where there is no /proc to read.
    """
    import numpy as np

    from benchmarks.probe import fresh
    from benchmarks.timing import Skipped

    if not Path("/proc/self/status").is_file():
        raise Skipped("it is read from /proc, which is not here")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.npy")
        shape = sizes.training_rows, sizes.visible
        np.save(rows, np.random.default_rng(0).integers(0, 2, shape, dtype=np.uint8))
        arguments = rows, folder, sizes.hidden, sizes.batch, sizes.updates
        cold, warm = (
            fresh("benchmarks.memory", *arguments, cache=Path(folder, "cache"), threads=threads)
            for _ in range(2)
        )
        alone = fresh("benchmarks.memory", cache=Path(folder, "cache"), threads=threads)
    for found in (cold, warm):
        about = sum(found[k] for k in ("data", "parameters", "optimiser", "chains"))
        found["beyond"] = found["peak"] - about
    return {
        "title": "Memory of a training run, MB above imports of torch and numba and one compiled kernel",
        "figures": {"warm cache": warm, "cold cache": cold, "torch.optim.SGD alone": alone},
        "notes": [
            f"{sizes.training_rows:,} rows of {sizes.visible} bytes from a file, {sizes.hidden} hidden "
            f"units, {sizes.updates} updates, with checkpoints",
            "beyond = peak − data − parameters − optimiser − chains",
            "imports, loaded, set up: resident above the line after importing gibbsian, after reading "
            "the rows, and before the first update",
            "torch.optim.SGD alone: what PyTorch's optimiser of one number imports, in a run or not",
        ],
    }  # fmt: skip


def _resident(field: str = "VmRSS") -> float:
    """Return the resident memory of this process, or its peak (VmHWM), in MB."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(rows[field].split()[0]) * 1024 / 1e6


def _line() -> float:
    """Import torch and numba, compile one kernel, and return what is resident then."""
    import numba
    import numpy as np
    import torch  # noqa: F401

    @numba.njit
    def kernel(x):  # type: ignore[no-untyped-def]
        for i in range(len(x)):
            x[i] = 1 / (1 + np.exp(-x[i]))

    kernel(np.zeros(8, np.float32))
    return _resident()


def _optimiser() -> dict[str, float]:
    """Return what the first optimiser of a process takes, in MB."""
    line = _line()
    import torch

    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    return {"peak": _resident("VmHWM") - line}


def _train(rows: str, folder: str, hidden: int, batch: int, updates: int) -> dict[str, float]:
    """Train in this process, and return what was resident at each stage, in MB above the line."""
    line = _line()
    import torch

    import gibbsian as gb
    from gibbsian.callbacks import Callback

    found = {"imports": _resident() - line}
    data = gb.data.load(rows, transform="identity")
    found["loaded"] = _resident() - line
    kept: list[Any] = []

    class Look(Callback):
        """Looks at memory before the first update, and keeps the trainer."""

        def on_start(self, trainer: Any) -> None:
            found["set up"] = _resident() - line
            kept.append(trainer)

    machine = gb.rbm(data.n_features, hidden)
    gb.train(
        machine, data, gb.PCD(chains=batch), out=Path(folder, "run"), overwrite=True, progress=False,
        batch_size=batch, updates=updates, log_every=60, schedule="constant", callbacks=[Look()],
    )  # fmt: skip
    found["peak"] = _resident("VmHWM") - line
    trainer = kept[0]
    found["data"] = Path(rows).stat().st_size / 1e6  # as they are held: one byte a unit
    found["parameters"] = sum(_bytes(p) for p in machine.parameters())
    states = trainer.optimizer.state.values()
    found["optimiser"] = sum(_bytes(t) for s in states for t in s.values() if torch.is_tensor(t))
    found["chains"] = sum(_bytes(t) for t in trainer.chains.layers)
    return found


def _bytes(values: Any) -> float:
    return values.nbytes / 1e6


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_train(sys.argv[1], sys.argv[2], *(int(a) for a in sys.argv[3:6]))))
    else:
        print(json.dumps(_optimiser()))
