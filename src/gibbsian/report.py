"""The report of a run: computes what a person should see, and writes one HTML page."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from torch import Generator, Tensor

from gibbsian import checkpoint, plots, repair
from gibbsian.assessment import assess, rows_of
from gibbsian.errors import RunError
from gibbsian.evaluators import Evaluation
from gibbsian.features import features
from gibbsian.noise import remove_noise
from gibbsian.report_certificate import certificate_section
from gibbsian.report_ladder import ladder_section
from gibbsian.report_page import Section, Verdict, render
from gibbsian.report_trajectory import trajectory_section
from gibbsian.trained import Trained
from gibbsian.units import base as unit

_SHOWN = 64
_STRIP = 10
_FLIP = 0.15

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Report:
    """What `report` made.

    Attributes
    ----------
    page : Path
        The HTML file.
    verdict : Verdict
    evaluation : Evaluation
    """

    page: Path
    verdict: Verdict
    evaluation: Evaluation


def report(
    trained: Trained,
    folder: Path | None = None,
    *,
    chains: int = 100,
    temperatures: int = 10_000,
    mixing_steps: int | None = None,
    rows: int | None = 10_000,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Write ``report.html``, ``evaluation.json`` and the report's pictures.

    Parameters
    ----------
    trained : Trained
        A run.
    folder : path, optional
        Where to write; the run's folder unless given.
    chains, temperatures, mixing_steps, rows, seed, progress
        As for `gibbsian.evaluators.evaluate`; `rows` limits each split.
    **options
        The others that `gibbsian.evaluators.evaluate` takes: ladder_steps, sampler, held_out_margin, ….

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    folder = folder or (trained.run.path if trained.run is not None else Path("report"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = checkpoint.explain(error)
        raise RunError(f"The report's folder {folder} cannot be made: {reason}.") from None
    found, verdict = assess(
        trained, chains=chains, temperatures=temperatures, mixing_steps=mixing_steps, rows=rows,
        seed=seed, progress=progress, **options,
    )  # fmt: skip
    like = next(trained.machine.parameters())
    splits = {k: x.to(like) for k, x in rows_of(trained.data, rows, seed).items()}
    sections = _Sections(trained, found, splits, folder, seed).all()
    page = render(
        f"{_name(trained)}", _subtitle(trained), verdict, _key_figures(found), sections,
        tomli_w.dumps(trained.config),
    )  # fmt: skip
    checkpoint.publish({
        folder / "evaluation.json": json.dumps(found.as_dict(), indent=1, allow_nan=False).encode(),
        folder / "report.html": page.encode(),
    })  # fmt: skip
    return Report(folder / "report.html", verdict, found)


def _name(trained: Trained) -> str:
    source = str(trained.config["data"]["spec"].get("source", "data"))
    return f"{Path(source).stem}: a Boltzmann machine and its samples"


def _subtitle(trained: Trained) -> str:
    layers = " – ".join(f"{u.size:,} {type(u).__name__}" for u in trained.machine.layers)
    method = trained.config["method"]
    kind = f"{str(method['kind']).upper()}-{method.get('steps', 1)}"
    return f"{layers} units, trained by {kind} for {trained.step:,} updates."


def _key_figures(found: Evaluation) -> list[tuple[str, str, str]]:
    name = "test" if "test" in found.splits else next(iter(found.splits))
    part = found.splits[name]
    figures = []
    if part.log_likelihood is not None:
        numbers, known = part.log_likelihood.as_dict(), part.log_likelihood.believed
        what = f"{name} log-likelihood{', bound' if part.log_likelihood.is_bound else ''}"
        if known is not None and known.name == "ladder":
            interval = f"{_nats(known.low)[:-5]} to {_nats(known.high)[:-5]}"
            figures.append(
                (
                    what,
                    _nats(known.value),
                    f"ladder, {interval}: believe this one",
                )
            )
        if numbers["exact"] is not None:
            figures.append((what, _nats(numbers["exact"]), "exact"))
        figures.append((what, _nats(numbers["ais"]), "AIS, optimistic"))
        figures.append((what, _nats(numbers["reverse_ais"]), "reverse AIS, pessimistic"))
        figures.append(
            ("gap", _nats(numbers["gap"]), f"ESS {numbers['ess']:.0f} of the AIS chains")
        )
    d = found.mixing.diagnostics["all"]
    figures.append(("split R-hat", f"{d.rhat:.3f}", f"{d.ess:,.0f} effective draws of the energy"))
    if part.pseudo_likelihood is not None:
        figures.append(("pseudo-likelihood", _nats(part.pseudo_likelihood), f"{name} rows"))
    error = part.reconstruction.squared_error
    figures.append(
        ("reconstruction error", f"{error:.4f}", f"mean squared, per column, {name} rows")
    )
    return figures


def _nats(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} nats".replace("-", "−")


class _Sections:
    """Draws the sections of one report into a folder."""

    def __init__(
        self,
        trained: Trained,
        found: Evaluation,
        splits: dict[str, Tensor],
        folder: Path,
        seed: int,
    ) -> None:
        self.trained, self.found, self.splits = trained, found, splits
        self.folder, self.seed, self.noise = folder, seed, trained.transform.noise
        device = next(trained.machine.parameters()).device
        self.generator = Generator(device).manual_seed(seed + 1)
        self.held = "test" if "test" in splits else next(iter(splits))

    def all(self) -> list[Section]:
        """Draw everything there is to draw for these data."""
        made = [
            self.samples(), self.strip(), self.likelihood(), self.energies(), self.ladder(),
            trajectory_section(self.found.partition, self.folder),
            certificate_section(self.found.certificate), self.reconstructions(),
            self.filters(), self.learning(),
        ]  # fmt: skip
        return [s for s in made if s is not None]

    def _pictures(self, x: Tensor) -> tuple[np.ndarray, tuple[int, ...] | None]:
        """Return rows ready to draw: image intensities, or plain columns for other data."""
        if self.trained.data.image_shape is None:
            return x.detach().cpu().numpy(), None
        images = self.trained.data.to_images(x)
        return images.reshape(len(images), -1), images.shape[1:]

    def _rows(self, split: str, limit: int | None = None) -> Tensor:
        """Return the (first `limit`) rows of a split without the noise that the transform adds."""
        rows = self.splits[split][:limit]
        if not bool(self.noise.any()):
            return rows
        part = self.trained.data.split(split)
        return part.tensor(limit=len(rows), generator=self.seed, noisy=False).to(rows)

    def _without_noise(self) -> str:
        """Say what was taken from samples, where the transform adds noise."""
        if not bool(self.noise.any()):
            return ""
        sd = float(self.noise.max())
        return (
            f" The transform adds noise of standard deviation {sd:g} to the data; pictures of samples are "
            "without it: the mean clean row behind each of them, by the machine itself."
        )

    def _save(self, figure: Any, name: str) -> Path:
        return plots.save(figure, self.folder / f"{name}.png")

    def samples(self) -> Section:
        """Final states of the noise-started chains beside their nearest training rows."""
        last = max(self.found.traces["noise"].visible)
        samples = self.found.traces["noise"].visible[last][:_SHOWN]
        samples = remove_noise(self.trained, samples)
        nearest = _nearest(samples, self._rows("train"))
        drawn, shape = self._pictures(samples)
        rows, _ = self._pictures(nearest)
        if shape is not None:
            plots.save_images(drawn, shape, self.folder / "samples.png")
        figure = plots.samples_and_neighbours(drawn, rows, shape)
        images = [
            (self._save(figure, "samples_and_neighbours"), "samples and nearest training rows", "")
        ]
        if shape is not None:
            images.append(self._means(shape))
        return Section(
            "Samples from noise",
            f"Chains started at pure noise, after {last:,} Gibbs steps: samples, not means. Each stands "
            "beside the training row nearest to it, so that copies would show."
            + self._without_noise(),
            images,
        )

    def _means(self, shape: tuple[int, ...]) -> tuple[Path, str, str]:
        """Draw what the hidden units of the same chains expect to see."""
        machine, layers = self.trained.machine, self.found.traces["noise"].state.layers
        with torch.no_grad():
            means = unit.mean(machine.layers[0], machine.field(0, layers))[:_SHOWN]
        drawn, _ = self._pictures(means)
        path = plots.save_images(drawn, shape, self.folder / "means.png")
        words = "Means, not samples: E[v | h] at the end of the same chains. For the eye only."
        return path, "conditional means of the same chains", words

    def strip(self) -> Section:
        """The same chains at growing numbers of steps, from noise and from a held-out row."""
        images = []
        for start, words in (("noise", "from noise"), ("data", "from training rows")):
            visible = self.found.traces[start].visible
            steps = sorted(visible)
            stack = [self._pictures(remove_noise(self.trained, visible[i][:_STRIP])) for i in steps]
            figure = plots.strip(np.stack([s[0] for s in stack]), steps, stack[0][1])
            path = self._save(figure, f"strip_{start}")
            images.append((path, f"chains {words} at {steps} steps", f"Chains {words}."))
        images.append(self._walk())
        return Section(
            "The way there",
            "The same chains at 0, 1, 10, 100, … steps. Once both kinds look alike, the start is forgotten."
            + self._without_noise(),
            images,
        )

    def _walk(self) -> tuple[Path, str, str]:
        """Chains that all start at one held-out row."""
        from gibbsian.samplers import sample

        last = max(self.found.traces["noise"].visible)
        steps = [i for i in (0, 1, 10, 100, 1_000, 10_000) if i <= last]
        row = self.splits[self.held][:1].repeat(_STRIP, 1)  # as the machine sees it, noise and all
        found = sample(
            self.trained.machine, _STRIP, last, start=row, generator=self.generator, record=steps
        )
        assert found.trace is not None
        stack = [self._pictures(remove_noise(self.trained, t)) for t in found.trace]
        figure = plots.strip(np.stack([s[0] for s in stack]), steps, stack[0][1])
        words = f"Chains that all start at one {self.held} row."
        return self._save(figure, "strip_row"), words, words

    def likelihood(self) -> Section | None:
        """Both bounds with their intervals."""
        part = self.found.splits[self.held].log_likelihood
        z = self.found.partition
        if part is None or z.ais is None:
            return None

        def triple(e: Any) -> tuple[float, float, float]:
            return tuple(-part.mean_free_energy - v for v in (e.log_z, e.high, e.low))  # type: ignore[return-value]

        data, noise = z.reverse.get("data"), z.reverse.get("noise")
        ladder = z.ladder
        exact = None if z.exact is None else -part.mean_free_energy - z.exact
        figure = plots.likelihood_bounds(
            triple(z.ais), triple(data) if data else None,
            reverse_from_noise=triple(noise) if noise else None,
            ladder=triple(ladder) if ladder else None, exact=exact,
            rows=f"{self.held} rows",
        )  # fmt: skip
        table = [("split", "ladder", "AIS", "reverse AIS", "standard error over rows")]
        for name, split in self.found.splits.items():
            if split.log_likelihood is not None:
                n = split.log_likelihood.as_dict()
                table.append(
                    (name, _nats(n["ladder"]), _nats(n["ais"]), _nats(n["reverse_ais"]),
                     _nats(split.log_likelihood.standard_error))
                )  # fmt: skip
        return Section(
            "Likelihood between two bounds",
            f"{z.words()[0]} AIS overestimates the likelihood on average and reverse AIS underestimates it, "
            f"on condition that its chains start at equilibrium. Likelihoods are {part.units}.",
            [(self._save(figure, "likelihood"), "both bounds on the log-likelihood", "")],
            table,
        )

    def energies(self) -> Section:
        """Free energies of noise- and data-started chains."""
        noise, data = self.found.traces["noise"], self.found.traces["data"]
        figure = plots.energy_chains(
            noise.energies.cpu(), data.energies.cpu(), noise.at.cpu(), quantity="Free energy"
        )
        images = [
            (self._save(figure, "energies"), "free energy against steps", "Of single chains.")
        ]
        if all(bool(torch.isfinite(t.energies).all()) for t in (noise, data)):
            means = plots.mixing(noise.energies.cpu(), data.energies.cpu(), noise.at.cpu())
            words = (
                "Means over the chains. Both have to stay in the grey band over the second half."
            )
            images.append((self._save(means, "mixing"), "mean free energy against steps", words))
        return Section(
            "Do the chains forget where they started?",
            "Free energy of chains started at noise and at training rows. They must come to lie on each "
            "other.",
            images,
        )

    def ladder(self) -> Section | None:
        """Acceptance and round trips of tempering, log Z along its ladder, samples at its levels."""
        return ladder_section(
            self.trained.machine, self.trained.reference, self.found.partition, self._pictures,
            self.folder, self.generator,
        )  # fmt: skip

    def reconstructions(self) -> Section:
        """One-step reconstructions, and denoising."""
        machine = self.trained.machine
        x = self.splits[self.held][:16]
        plain, _ = self._pictures(repair.reconstruct(machine, x))
        rows, shape = self._pictures(self._rows(self.held, 16))
        images = []
        figure = plots.reconstructions(rows, None, plain, shape)
        path = self._save(figure, "reconstructions")
        images.append((path, "rows and reconstructions", f"{self.held} rows and E[v | E[h | v]]."))
        whole = self.splits[self.held][:1000]
        found = repair.denoise(machine, whole, _FLIP, self.generator)
        damaged, _ = self._pictures(found.damaged[:16])
        repaired, _ = self._pictures(found.repaired[:16])
        clean, _ = self._pictures(self._rows(self.held, 16))
        path = self._save(plots.reconstructions(clean, damaged, repaired, shape), "denoising")
        errors = f"error {found.before:.4f} before, {found.after:.4f} after"
        words = f"{_FLIP:.0%} of the entries damaged; {errors}."
        images.append((path, "denoising", words))
        table = [("split", "squared error per column", "cross-entropy per row")]
        for name, split in self.found.splits.items():
            r = split.reconstruction
            table.append((name, f"{r.squared_error:.4f}", _nats(r.cross_entropy)))
        return Section(
            "Reconstruction and denoising",
            "A small error says that the hidden units hold a row, not that samples look like rows.",
            images,
            table,
        )

    def filters(self) -> Section:
        """The couplings of the hidden units of largest norm, and what deeper ones come to in pixel space."""
        machine, images = self.trained.machine, []
        shape = self.trained.data.image_shape
        if shape is not None and int(np.prod(shape)) != machine.sizes[0]:
            shape = None
        for layer in range(1, len(machine.layers)):
            rows = features(machine, layer).detach().cpu()
            figure = plots.filters(rows, None if shape is None else tuple(shape), layer=layer)
            name = "filters" if layer == 1 else f"filters_{layer}"
            words = f"Layer {layer}: products of the couplings down to the visible units."
            images.append((self._save(figure, name), "couplings of hidden units",
                           words if layer > 1 else ""))  # fmt: skip
        return Section(
            "What the hidden units look for",
            "Couplings of each hidden unit to the visible ones.",
            images,
        )

    def learning(self) -> Section | None:
        """The metrics taken during training."""
        if not self.trained.history:
            return None
        figure = plots.learning_curves(self.trained.history)
        return Section(
            "Learning curves",
            "Measured during training on fixed rows, for the averaged parameters.",
            [(self._save(figure, "learning_curves"), "metrics against updates", "")],
        )


def _nearest(samples: Tensor, rows: Tensor) -> Tensor:
    with torch.no_grad():
        return rows[torch.cdist(samples, rows).argmin(dim=1)]
