"""The pictures of a comparison: data, reconstructions, fantasy particles, denoising, features."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from gibbsian import plots, samplers
from gibbsian.comparison.denoising import Denoised
from gibbsian.comparison.plan import Plan
from gibbsian.comparison.training import Fitted
from gibbsian.features import features
from gibbsian.noise import remove_noise
from gibbsian.repair import reconstruct
from gibbsian.report_page import Section
from gibbsian.units import base as unit

_DRIVEN = 0.8  # of the steps; the rest is plain Gibbs
_DATA = "Data"

Stacks = dict[str, Tensor]


def held_out(fitted: Fitted, limit: int, seed: int) -> tuple[str, Tensor]:
    """Return the name and rows of the part of a model's data that it was not trained on, if there is one."""
    parts = {k: getattr(fitted.data, k) for k in ("test", "validation", "train")}
    name = next(k for k, p in parts.items() if p is not None and len(p))
    like = next(fitted.trained.machine.parameters())
    rows = parts[name].tensor(limit=limit, generator=seed).to(like)
    source = Generator(like.device).manual_seed(seed)
    return name, unit.states(fitted.trained.machine.layers[0], rows, source)


class Pictures:
    """Draws the pictures of trained models into a folder.

    Parameters
    ----------
    plan : Plan
    fitted : sequence of Fitted
    denoised : mapping of model's name to Denoised
    folder : path
    """

    def __init__(
        self, plan: Plan, fitted: Sequence[Fitted], denoised: Mapping[str, Denoised], folder: Path
    ) -> None:
        self.plan, self.fitted, self.denoised, self.folder = plan, fitted, denoised, folder
        self._columns = plan.figures.columns
        self.held, rows = held_out(fitted[0], self._columns, plan.seed)
        data = fitted[0].data
        images = data.image_shape is not None
        self._shape = data.to_images(rows.cpu()).shape[1:] if images else None
        self._data = {_DATA: self._shown(fitted[0], rows)}

    def all(self) -> list[Section]:
        """Draw everything."""
        return [
            self.data(), self.reconstructions(), self.fantasies(), self.denoising(),
            *self.features(),
        ]  # fmt: skip

    def data(self) -> Section:
        """Rows of the data."""
        words = f"{self.held.capitalize()} rows, as the models see them."
        return Section("Data", words, [self._save(self._data, "data", "rows of the data")])

    def reconstructions(self) -> Section:
        """What each model makes of rows by the means of its hidden units."""

        def again(f: Fitted) -> Tensor:
            rows = held_out(f, self._columns, self.plan.seed)[1]
            return reconstruct(f.trained.machine, rows)

        stacks = self._data | self._of_each(again)
        return Section(
            "Reconstructions",
            f"{self.held.capitalize()} rows, and what each model expects to see given the means of its "
            "hidden units (by mean field in several layers). A good reconstruction says that the "
            "hidden units hold a row, not that samples look like rows.",
            [self._save(stacks, "reconstructions", "rows and their reconstructions")],
        )

    def fantasies(self) -> Section:
        """Chains from noise with an annealed drive, and plain ones."""
        drawn, steps = self.plan.figures, self.plan.figures.fantasy_steps
        ways: dict[str, Callable[[], samplers.Sampler]] = {
            "driven": lambda: samplers.Driven(drawn.std, drawn.momentum, round(_DRIVEN * steps)),
            "gibbs": samplers.Gibbs,
        }
        words = {
            "driven": f"Driven by a random inverse temperature of mean 1, whose spread falls from "
            f"{drawn.std:g} to 0 over the first {_DRIVEN:.0%} of the steps.",
            "gibbs": "Plain block Gibbs.",
        }
        images = []
        # Where there are too few rows to stand above all samples, none does.
        above = self._data if len(self._data[_DATA]) == self._columns else {}
        for way, kernel in ways.items():

            def particles(f: Fitted, kernel: Callable[[], samplers.Sampler] = kernel) -> Tensor:
                found = samplers.sample(
                    f.trained.machine, self._columns, steps, generator=self.plan.seed, sampler=kernel()
                )  # fmt: skip
                return remove_noise(f.trained, found.samples)

            path, alt, _ = self._save(
                above | self._of_each(particles), f"fantasies_{way}",
                f"fantasy particles, {way} chains",
            )  # fmt: skip
            images.append((path, alt, words[way]))
        return Section(
            "Fantasy particles",
            f"Each model's own samples: chains started at noise, after {steps:,} steps. States, not "
            "means, without the noise of a transform."
            + (" Rows of the data are above them; no sample belongs to one." if above else ""),
            images,
        )

    def denoising(self) -> Section:
        """Damaged rows, and what each model makes of them, by means and by its posterior."""
        n, flip = self._columns, self.plan.figures.flip
        words = {
            "mean-field": "By the means of the hidden units given the damaged row, as the notebook does it.",
            "posterior": "Posterior: the mean of v given the damaged row and how rows are damaged, by "
            f"{self.plan.figures.denoising_steps} Gibbs steps. What the model as a distribution has to say.",
        }
        first = self.fitted[0]
        shown = self.denoised[first.model.name]
        rows = {
            _DATA: self._shown(first, shown.original[:n]),
            "Noisy": self._shown(first, shown.damaged[:n]),
        }
        images = []
        for way in shown.restored:

            def restored(f: Fitted, way: str = way) -> Tensor:
                found = self.denoised[f.model.name].restored
                return found.get(way, found["mean-field"])[:n]

            stacks = rows | self._of_each(restored)
            path, alt, _ = self._save(stacks, f"denoising_{way}", f"denoising by {way}")
            images.append((path, alt, words[way]))
        return Section(
            "Denoising",
            f"{self.held.capitalize()} rows with {flip:.0%} of the entries flipped, and restored by each "
            "model. The errors are in the table above.",
            images,
        )

    def features(self) -> list[Section]:
        """The couplings of the hidden units of largest norm, a section a model."""
        sections, deep = [], "; those of higher layers through the layers below, by products."
        for f in self.fitted:
            shape = f.data.image_shape
            images = []
            for layer in range(1, len(f.trained.machine.layers)):
                rows = features(f.trained.machine, layer).cpu()
                fits = shape is not None and int(np.prod(shape)) == rows.shape[1]
                figure = plots.filters(
                    rows, tuple(shape) if fits and shape else None,
                    most=self.plan.figures.features, layer=layer,
                )  # fmt: skip
                path = plots.save(figure, self.folder / f"features_{f.model.name}_{layer}.png")
                images.append(
                    (path, f"features of layer {layer} of {f.model.label}", f"Layer {layer}.")
                )
            sections.append(
                Section(
                    f"Features: {f.model.label}",
                    "Couplings of each hidden unit to the visible ones"
                    + (deep if len(images) > 1 else "."),
                    images,
                )
            )
        return sections

    def _of_each(self, rows: Callable[[Fitted], Tensor]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {f.model.label: self._shown(f, rows(f)) for f in self.fitted}

    def _shown(self, fitted: Fitted, x: Tensor) -> np.ndarray:
        """Return rows as intensities of an image, or as plain columns of other data."""
        if fitted.data.image_shape is None:
            return x.detach().cpu().numpy()
        images = fitted.data.to_images(x.detach().cpu())
        return images.reshape(len(images), -1)

    def _save(self, stacks: Mapping[str, np.ndarray], name: str, alt: str) -> tuple[Path, str, str]:
        figure = plots.labelled(stacks, self._shape)
        return plots.save(figure, self.folder / f"{name}.png"), alt, ""
