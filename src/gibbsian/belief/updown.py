"""The up-down algorithm: contrastive wake-sleep for deep belief networks (Hinton, Osindero & Teh 2006, §5).

Each of its eight steps is one function here; `UpDown` makes an update of them.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from gibbsian import averaging, optimizers, precision, schedules
from gibbsian.arguments import number, whole
from gibbsian.belief import DeepBeliefNetwork
from gibbsian.belief.directed import Directed
from gibbsian.belief.network import lowered
from gibbsian.belief.stage import Progress, Stage
from gibbsian.data import Batch, Dataset
from gibbsian.errors import TrainingError
from gibbsian.machine import BoltzmannMachine, State
from gibbsian.moments import Moments, combined
from gibbsian.proper import Keeper
from gibbsian.samplers.gibbs import draw
from gibbsian.units import base as unit


@torch.no_grad()
def wake(
    network: DeepBeliefNetwork, v: Float[Tensor, "batch n"], generator: Generator
) -> list[Tensor]:
    """Step 1: draw the layers from the visible to the pen one, each by the recognition weights."""
    return network.up(v, generator)


@torch.no_grad()
def positive(
    top: BoltzmannMachine, pen: Float[Tensor, "batch pen"], hot: Tensor, generator: Generator
) -> tuple[State, Moments]:
    """Steps 1 and 2: the top layer drawn from pen and labels; the statistics of all three.

    Returns the top machine's state, its top layer drawn, and the mean statistics, which take the top
    layer by its mean: the same expectation, with less noise.
    """
    visible = torch.cat([pen, hot], dim=1)
    state = [visible, visible]
    fields = draw(top, state, 1, generator)
    return tuple(state), top.mean_statistics(state, 1, fields=fields)


@torch.no_grad()
def gibbs(top: BoltzmannMachine, state: State, steps: int, generator: Generator) -> State:
    """Step 3: alternate `steps` times between pen with labels (a softmax block) and top layer."""
    layers = list(state)
    for _ in range(steps):
        draw(top, layers, 0, generator)
        draw(top, layers, 1, generator)
    return tuple(layers)


@torch.no_grad()
def negative(top: BoltzmannMachine, state: State) -> Moments:
    """Step 4: the statistics after the chain, the top layer again by its mean."""
    return top.mean_statistics(state, 1)


@torch.no_grad()
def sleep(
    network: DeepBeliefNetwork, pen: Float[Tensor, "batch pen"], generator: Generator
) -> list[Tensor]:
    """Step 5: draw the layers from the chain's last pen states down, each by the generative weights."""
    return network.down(pen, generator)


def generative(network: DeepBeliefNetwork, states: Sequence[Tensor]) -> Moments:
    """Step 6: the delta rule for p(s_l | s_{l+1}) on the states of the wake pass."""
    return _delta("generative", network.down_layers, states[:-1], states[1:])


def top_machine(
    top: BoltzmannMachine, found: Moments, chain: Moments, told: Moments | None = None,
    share: float = 0.0,
) -> Moments:  # fmt: skip
    """Step 7: contrastive divergence of the top machine, ⟨T⟩ after the chain minus ⟨T⟩ before it.

    What tells labels apart, `told`, takes its share of that.
    """
    parts = [(1.0 - share, chain), (share - 1.0, found)]
    descended = combined(parts if told is None else [*parts, (share, told)])
    learned = top.learned()
    logs = {k: descended[k] * p.detach().exp() for k, p in learned.items() if unit.is_log(k)}
    entries = descended.entries() | logs
    return Moments({f"top.{k}": entries[k] for k in learned})


@torch.no_grad()
def discriminate(
    network: DeepBeliefNetwork, pen: Float[Tensor, "batch pen"],
    hot: Float[Tensor, "batch classes"],
) -> Moments:  # fmt: skip
    """Step 7 of −log p(y | s_P): Σ_k (p(k | s_P) − y_k) T(s_P, k), the mean over rows.

    Each row and label is weighted by the difference: of two large sums little of it would be left.
    """
    visible, field = network.labels.every(pen)
    energies = network.top.marginal_energy((visible,), fields={1: field})
    wrong = (-energies).reshape(len(pen), -1).softmax(dim=1).to(hot) - hot
    terms = network.top.terms((visible,), 1, {1: field})
    return terms.sums(wrong.flatten() / len(pen))


def recognition(network: DeepBeliefNetwork, states: Sequence[Tensor]) -> Moments:
    """Step 8: the delta rule for q(s_{l+1} | s_l) on the states of the sleep pass."""
    return _delta("recognition", network.up_layers, states[1:], states[:-1])


def _delta(
    name: str, layers: Sequence[Directed], targets: Sequence[Tensor], given: Sequence[Tensor]
) -> Moments:
    return Moments({
        f"{name}.{i}.{k}": g
        for i, (layer, s, x) in enumerate(zip(layers, targets, given, strict=True))
        for k, g in layer.gradient(s, x).entries().items()
    })  # fmt: skip


def gradients(
    network: DeepBeliefNetwork, v: Float[Tensor, "batch n"], hot: Float[Tensor, "batch classes"],
    steps: int, generator: Generator, kept: State | None = None, share: float = 0.0,
    discriminative: float = 0.0, walker: DeepBeliefNetwork | None = None,
) -> tuple[Moments, State | None]:  # fmt: skip
    """All eight steps: what an optimiser descends, by the names of the network's parameters.

    A network of one hidden layer has the steps of its top machine alone, which are those of CD. Chains
    that are `kept` from update to update make step 3 as well, have this `share` in the statistics of step 4,
    and are returned. What they find far from the data, chains from the data never see, and contrastive
    divergence leaves it there: a chain from noise then ends in it.

    With a `discriminative` share d the top machine learns (1 − d) log p(s_P, y) + d log p(y | s_P).

    `walker` goes all these ways: the network itself, with products in another precision.
    """
    walker = network if walker is None else walker
    top, awake = walker.top, wake(walker, v, generator)
    state, found = positive(top, awake[-1], hot, generator)
    state = gibbs(top, state, steps, generator)
    chain = negative(top, state)
    if kept is not None:
        kept = gibbs(top, kept, steps, generator)
        far = negative(top, kept)
        chain = combined([(1.0 - share, chain), (share, far)])
    told = discriminate(walker, awake[-1], hot) if discriminative else None
    # A top machine in bfloat16 keeps its states in it.
    asleep = sleep(walker, state[0][:, : network.pen].to(v.dtype), generator)
    parts = (
        generative(walker, awake),
        top_machine(network.top, found, chain, told, discriminative),
        recognition(walker, asleep),
    )
    return Moments({k: g for part in parts for k, g in part.entries().items()}), kept


@dataclass(frozen=True)
class Settings:
    """How the up-down algorithm is run.

    Attributes
    ----------
    epochs, batch_size : int
    lr : float
        Learning rate.
    top_lr : float, optional
        That of the top machine; `lr` unless given.
    momentum : float
        0 for none.
    steps : int or sequence of int
        Gibbs steps of the top machine; several values share the run in equal parts.
        Hinton, Osindero & Teh took (3, 6, 10), with no chain that persists.
    persistent : float
        Share of chains that persist, as many as the batch has rows, in the statistics after the Gibbs steps.
        They begin at noise, so that what a chain from noise falls into is trained away. 0 is the algorithm
        as published.
    discriminative : float
        Share d of log p(y | s_P) in what the top machine learns of pen states s_P and labels y, beside 1 − d
        of log p(s_P, y) (Larochelle & Bengio 2008). 0 is the algorithm as published; labels are a small part
        of what there is to model, and a share near 1 tells them apart better.
    average : float
        Decay of the Polyak average of the parameters; 0 for none.
    schedule, schedule_options
        See `gibbsian.schedules`.
    seed : int
    monitor_rows : int
        Rows of each split that records are taken on.
    precision : {"fp32", "bf16", "auto"}
        Of all products: see `gibbsian.precision`.
    """

    epochs: int = 10
    batch_size: int = 100
    lr: float = 0.05
    top_lr: float | None = None
    momentum: float = 0.0
    steps: int | Sequence[int] = (1, 1, 2)
    persistent: float = 0.5
    discriminative: float = 0.0
    average: float = 0.999
    schedule: str = "linear"
    schedule_options: Mapping[str, float] | None = None
    seed: int = 0
    monitor_rows: int = 1000
    precision: str = "fp32"

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises
        ------
        TrainingError
            With one sentence that names the setting.
        """
        for name in ("lr", "top_lr"):
            value = getattr(self, name)
            what = f"The learning rate {name} of the up-down algorithm"
            if value is not None and number(value, what, TrainingError) <= 0:
                raise TrainingError(f"{what} must be positive, not {value!r}.")
        for name in ("momentum", "average"):
            what = f"The setting {name} of the up-down algorithm"
            if not 0 <= number(getattr(self, name), what, TrainingError) < 1:
                raise TrainingError(f"{what} lies in [0, 1), not at {getattr(self, name)!r}.")
        for name in ("persistent", "discriminative"):
            value = getattr(self, name)
            if not 0 <= number(value, f"The setting {name}", TrainingError) <= 1:
                raise TrainingError(f"{name} is a share from 0 to 1, not {value!r}.")
        for n in self.chain:
            whole(n, "The number of Gibbs steps", error=TrainingError)
        whole(self.monitor_rows, "monitor_rows", error=TrainingError)
        precision.resolve(self.precision, "cpu")  # refuses a name that is none

    @property
    def chain(self) -> tuple[int, ...]:
        """The numbers of Gibbs steps, one for each part of the run."""
        steps = self.steps
        return tuple(steps) if isinstance(steps, Sequence) and steps else (steps,)  # type: ignore[return-value]

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        plain = asdict(self) | {"steps": list(self.chain)}
        return {k: v for k, v in plain.items() if v is not None}


class UpDown(Stage):
    """Trains a deep belief network by the up-down algorithm, in place.

    Parameters
    ----------
    network : DeepBeliefNetwork
        From `gibbsian.belief.stack`; with classes, the data need labels.
    data : Dataset
    settings : Settings, optional
    progress : callable, optional
        See `gibbsian.belief.stage.Stage`.

    Attributes
    ----------
    averaged : DeepBeliefNetwork
        The Polyak average: what to sample and classify with.
    chains : tuple of Tensor or None
        States of the top machine that persist.

    Raises
    ------
    GibbsianError
        If data and network do not fit, or a setting is impossible.
    """

    def __init__(
        self, network: DeepBeliefNetwork, data: Dataset, settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.settings = s = settings or Settings()
        super().__init__(network, data, s.epochs, s.batch_size, s.seed, progress=progress)
        self.network = network
        check_labels(network, data)
        check_share(s, network.classes)
        rate = s.lr if s.top_lr is None else s.top_lr
        lower = [*network.generative.parameters(), *network.recognition.parameters()]
        groups = [
            {"params": [p for p in part if p.requires_grad], "lr": lr}
            for part, lr in ((lower, s.lr), (network.top.parameters(), rate))
        ]
        # It holds the learning rates, which the scheduler sets.
        self.optimizer = optimizers.build("sgd", [g for g in groups if g["params"]])
        self.scheduler = schedules.build(
            s.schedule, s.schedule_options or {}, self.optimizer, self.total
        )
        self.averaged = copy.deepcopy(network)
        self._pairs = list(zip(self.averaged.parameters(), network.parameters(), strict=True))
        self._named = {k: p for k, p in network.named_parameters() if p.requires_grad}
        self._velocity: dict[str, Tensor] = {}
        self._limits = _limits(network)
        self._keeper = Keeper(network.top)
        self._monitored = _monitored(data, s)
        device = next(network.parameters()).device
        self._walker = lowered(network, precision.resolve(s.precision, device))
        self._rounded = [c for c in self._walker.modules() if isinstance(c, precision.Rounded)]
        self.chains = self._noise() if s.persistent else None

    def _noise(self) -> State:
        """Return states of the top machine that carry nothing of the data."""
        units, like = self.network.top.layers[0], next(self.network.parameters())
        visible = units.domain.noise(self.batch_size, self.generator).to(like)
        state = [visible, visible]
        draw(self.network.top, state, 1, self.generator)
        return tuple(state)

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Make the eight steps on one batch."""
        network, like = self.network, next(self.network.parameters())
        hot = labels_of(network, batch.labels, len(batch.x)).to(like)
        parts = self.settings.chain
        steps = parts[min(self.step * len(parts) // self.total, len(parts) - 1)]
        for connection in self._rounded:
            connection.refresh()
        found, self.chains = gradients(
            network, batch.x.to(like), hot, steps, self.generator, self.chains,
            self.settings.persistent, self.settings.discriminative, self._walker,
        )  # fmt: skip
        self._descend(found)
        self.scheduler.step()
        self._keeper.keep()
        averaging.take_in(self._pairs, self.step + 1, self.settings.average)

    def _descend(self, found: Moments) -> None:
        """Take the step of SGD with momentum, as PyTorch's does, which would import its compiler first.

        Sums over rows go straight into what they change, and no gradient of couplings is formed.
        """
        momentum = self.settings.momentum
        # PyTorch's schedulers warn unless the optimiser was at work before them; this is its work.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        rates = {id(p): g["lr"] for g in self.optimizer.param_groups for p in g["params"]}
        for name, p in self._named.items():
            rows, rate = found.rows(name), rates[id(p)]
            if momentum:
                v = self._velocity.setdefault(name, torch.zeros_like(p)).mul_(momentum)
                v.add_(found[name]) if rows is None else rows.add_to(v, 1.0)
                p.add_(v, alpha=-rate)
            elif rows is None:
                p.add_(found[name], alpha=-rate)
            else:
                rows.add_to(p, -rate)
        for p, low, high in self._limits:
            p.clamp_(low, high)

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """Return reconstruction error (squared, per column, by means) and label error of each split."""
        network = self.averaged
        record: dict[str, Any] = {"lr": self.scheduler.get_last_lr()[0]}
        like = next(network.parameters())
        for split, (x, labels) in self._monitored.items():
            x = x.to(like)
            if network.down_layers:
                means = network.down_layers[0](network.up_layers[0](x))
                error = float((means - x).square().mean())
                record.setdefault("reconstruction_error", {})[split] = error
            if network.classes and labels is not None:
                wrong = network.classify(x).cpu() != labels
                record.setdefault("label_error", {})[split] = float(wrong.double().mean())
        return record

    def parts(self) -> dict[str, Any]:
        """Return average, momentum, scheduler and the memory of what keeps the top proper."""
        return {
            "average": dict(self.averaged.state_dict()),
            "velocity": dict(self._velocity),
            "scheduler": self.scheduler.state_dict(),
            "keeper": self._keeper.state_dict(),
            "chains": self.chains,
        }

    def load_parts(self, state: dict[str, Any]) -> None:
        """Take back what `parts` returned."""
        self.averaged.load_state_dict(state["average"])
        like = next(self.network.parameters())
        self._velocity = {k: v.to(like) for k, v in state["velocity"].items()}
        self.scheduler.load_state_dict(state["scheduler"])
        for group, lr in zip(
            self.optimizer.param_groups, state["scheduler"]["_last_lr"], strict=True
        ):
            group["lr"] = lr
        self._keeper.load_state_dict(state["keeper"])
        if state.get("chains") is not None:
            self.chains = tuple(t.to(like) for t in state["chains"])


def _limits(network: DeepBeliefNetwork) -> list[tuple[Tensor, float, float]]:
    """Return the learned parameters that have to stay between two bounds."""
    directed = [layer.units for layer in (*network.down_layers, *network.up_layers)]
    return [
        (leaf.get_parameter(name), low, high)
        for u in (*directed, *network.top.layers)
        for leaf in unit.leaves(u)
        for name, (low, high) in leaf.domain.limits.items()
        if leaf.get_parameter(name).requires_grad
    ]


def labels_of(
    network: DeepBeliefNetwork, labels: Int64[Tensor, " rows"] | None, rows: int
) -> Float[Tensor, "rows classes"]:
    """Return the states of the label block for rows of data; no columns for a network without labels."""
    return network.labels.hot(labels, "the data") if network.classes else torch.zeros(rows, 0)


def check_share(settings: Settings, classes: Sequence[int]) -> None:
    """Refuse a discriminative share without classes.

    Raises
    ------
    TrainingError
        In one sentence.
    """
    if settings.discriminative and not classes:
        raise TrainingError(
            "This network has no labels to tell apart; leave discriminative out, or train with labels."
        )


def check_labels(network: DeepBeliefNetwork, data: Dataset) -> None:
    """Refuse data without labels, or with others than the network's, before the first update.

    Raises
    ------
    DataError
        In one sentence.
    """
    for what in ("train", "validation", "test") if network.classes else ():
        part = getattr(data, what)
        if part is not None and len(part):
            labels = None if part.labels is None else torch.from_numpy(part.labels)
            network.labels.hot(labels, f"the {'training' if what == 'train' else what} rows")


def _monitored(data: Dataset, s: Settings) -> dict[str, tuple[Tensor, Tensor | None]]:
    parts = {"train": data.train, "validation": data.validation}
    return {
        k: (
            p.tensor(limit=s.monitor_rows, generator=s.seed),
            None if p.labels is None else torch.from_numpy(p.labels[: s.monitor_rows]),
        )
        for k, p in parts.items()
        if p is not None and len(p)
    }
