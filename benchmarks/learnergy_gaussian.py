"""learnergy's Gaussian machines: trained by their own `fit`, sampled by their own steps.

Settings are those of learnergy's examples: batches of 128, CD-1, a learning rate of 0.005 on inputs
shifted and scaled by two numbers (`GaussianRBM`, which standardises each batch besides), or 0.0005 on grey
levels in [0, 1] (`VarianceGaussianRBM`).
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import TensorDataset

KINDS = {
    "learnergy-gaussian": ("GaussianRBM", 0.005),
    "learnergy-variance": ("VarianceGaussianRBM", 0.0005),
}


class Peer:
    """One of learnergy's machines, and what takes its states to pixels.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    rows : Tensor (rows, d)
        Training pixels between 0 and 1.
    hidden, seed : int
    """

    def __init__(
        self, kind: str, rows: Float[Tensor, "rows d"], hidden: int, seed: int = 0
    ) -> None:
        from learnergy.models import gaussian

        torch.manual_seed(seed)
        name, rate = KINDS[kind]
        self.standardises = name == "GaussianRBM"
        self.model: Any = getattr(gaussian, name)(rows.shape[1], hidden, learning_rate=rate)
        self.mean, self.std = rows.mean(dim=0), rows.std(dim=0)
        if self.standardises:
            rows = (rows - rows.mean()) / rows.std()
        self._set = TensorDataset(rows, torch.zeros(len(rows)))

    def train(self, minutes: float, out: Path) -> dict[str, Any]:
        """Run whole epochs until the time of the processor is used, going on from those that were run.

        Returns
        -------
        dict
            ``seconds``, ``epochs``, ``error`` (the last mean squared error per row), and ``crash`` if it did.
        """
        told, weights = out / "seconds.json", out / "model.pt"
        found: dict[str, Any] = {"seconds": 0.0, "epochs": 0}
        if told.is_file():
            found = json.loads(told.read_text())
            self.model.load_state_dict(torch.load(weights))
        out.mkdir(parents=True, exist_ok=True)
        begin = time.process_time() - found["seconds"]
        while found["seconds"] < 60 * minutes and "crash" not in found:
            try:
                error, _ = self.model.fit(self._set, batch_size=128, epochs=1)
                found["error"] = float(error)
                if not torch.isfinite(self.model.W).all():
                    found["crash"] = "parameters that are not finite, without a word"
            except Exception as error:  # how a peer fails is what is asked here
                found["crash"] = f"{type(error).__name__}: {str(error)[:200]}"
            found["epochs"] += 1
            found["seconds"] = time.process_time() - begin
            torch.save(self.model.state_dict(), weights)
            told.write_text(json.dumps(found))
        return found

    @torch.no_grad()
    def chains(
        self, n: int, steps: tuple[int, ...], seconds: float, seed: int = 0
    ) -> Iterator[tuple[int, Tensor, Tensor, float]]:
        """Start chains at N(0, 1) (grey noise for the other machine) and yield them at each number of steps.

        Where all of them would take longer than `seconds`, only the first ones go on.

        Yields
        ------
        tuple
            Steps, pixels of the visible states, pixels as `reconstruct` returns them, and seconds so far.
        """
        torch.manual_seed(seed)
        d = len(self.mean)
        v = torch.randn(n, d) if self.standardises else torch.rand(n, d)
        begin, done, each = time.process_time(), 0, 0.0
        for at in steps:
            v = v[: max(64, int(seconds / (each * at)))] if each else v
            returned, now = v, time.process_time()
            for _ in range(at - done):
                _, h = self.model.hidden_sampling(v, True)
                returned, v = self.model.visible_sampling(h, True)
            each, done = (time.process_time() - now) / (at - done) / len(v), at
            yield at, self._pixels(v), returned.clamp(0, 1), time.process_time() - begin

    def _pixels(self, v: Tensor) -> Tensor:
        """Undo the standardisation, as favourably as can be: by mean and deviation of each pixel."""
        return (v * self.std + self.mean if self.standardises else v).clamp(0, 1)
