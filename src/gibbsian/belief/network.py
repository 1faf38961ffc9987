"""Deep belief networks (Hinton, Osindero & Teh 2006): directed layers below, an undirected machine on top.

    p(v, s_1 … s_P, y, h) = p(v | s_1) p(s_1 | s_2) … p(s_{P−1} | s_P) · p_top(s_P, y, h)

The top machine is an RBM whose visible side is the pen layer s_P (the last one below the top), with a
block of one-of-K label units y beside it if there are labels. An approximate posterior
q(s_1 … s_P | v) = Π q(s_{l+1} | s_l) goes upwards with weights of its own.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from gibbsian import models
from gibbsian import precision as precisions
from gibbsian import units as families
from gibbsian.arguments import whole
from gibbsian.belief.directed import Directed
from gibbsian.belief.label_block import LabelBlock, with_labels
from gibbsian.connections import Connection, Dense
from gibbsian.errors import GibbsianError
from gibbsian.features import hidden_layer
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers.base import as_generator, sample
from gibbsian.units import Units
from gibbsian.units import base as unit

_CHUNK_ELEMENTS = 2**24


@dataclass(frozen=True)
class Generated:
    """What `DeepBeliefNetwork.generate` returns.

    Attributes
    ----------
    samples : Tensor (n, visible)
        Draws of the visible layer given the layer above it.
    means : Tensor (n, visible)
        Their conditional means, for pictures: not samples.
    labels : Tensor (n,) or None
        The class of each, as the top machine's chain left it or as it was held.
    top : Tensor (n, pen + labels)
        The visible side of the top machine after its chain.
    """

    samples: Float[Tensor, "n visible"]
    means: Float[Tensor, "n visible"]
    labels: Int64[Tensor, " n"] | None
    top: Float[Tensor, "n columns"]


class DeepBeliefNetwork(nn.Module):
    """A deep belief network with untied recognition and generative weights.

    Parameters
    ----------
    generative : sequence of Directed
        p(s_l | s_{l+1}) from the visible layer upwards; none for a network of one hidden layer, which is
        its top machine.
    recognition : sequence of Directed
        q(s_{l+1} | s_l), as many.
    top : BoltzmannMachine
        Two layers; the first is the pen layer, with the label block behind it if there are classes.
    classes : sequence of int
        Which label each column of that block stands for; empty for a network without labels.

    Raises
    ------
    GibbsianError
        If numbers or sizes of layers do not fit each other.
    """

    def __init__(
        self,
        generative: Sequence[Directed],
        recognition: Sequence[Directed],
        top: BoltzmannMachine,
        classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.generative, self.recognition = nn.ModuleList(generative), nn.ModuleList(recognition)
        self.top = top
        # Plain lists for speed, as in `BoltzmannMachine`.
        self.down_layers, self.up_layers = list(generative), list(recognition)
        self.labels = LabelBlock(top, classes)
        self.classes, self.pen = self.labels.classes, self.labels.pen
        _check_layers(self)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of units of each layer from the visible one upwards, labels not counted."""
        lower = [g.units.size for g in self.down_layers]
        return (*lower, self.pen, self.top.sizes[1])

    @property
    def visible(self) -> Units:
        """The units of the visible layer."""
        return self.down_layers[0].units if self.down_layers else self.labels.units

    def check(self, v: Tensor, what: str = "the data") -> None:
        """Raise a `DataError` unless `v` are valid rows of the visible layer."""
        unit.check(self.visible, v, what)

    @torch.no_grad()
    def up(self, v: Float[Tensor, "rows n"], generator: Generator | None = None) -> list[Tensor]:
        """Go from the visible layer to the pen layer: states s_0 = v … s_P.

        Samples with a generator, else the means of the means below.
        """
        states = [v]
        for layer in self.up_layers:
            x = states[-1]
            states.append(layer(x) if generator is None else layer.sample(x, generator))
        return states

    @torch.no_grad()
    def down(self, pen: Float[Tensor, "rows pen"], generator: Generator) -> list[Tensor]:
        """Go from the pen layer to the visible one, drawing each layer: states s_0 … s_P = pen."""
        states = [pen]
        for layer in reversed(self.down_layers):
            states.insert(0, layer.sample(states[0], generator))
        return states

    def generate(
        self,
        n: int = 64,
        steps: int = 1000,
        *,
        label: int | Sequence[int] | Tensor | None = None,
        start: str | Tensor = "noise",
        generator: Generator | int | None = None,
        data: Float[Tensor, "rows n"] | None = None,
    ) -> Generated:
        """Generate rows: a Gibbs chain of the top machine, then one ancestral pass down.

        Parameters
        ----------
        n : int
            Number of chains, one sample each.
        steps : int
            Gibbs steps of the top machine.
        label : int or n of them, optional
            Class that the label units are held at; they run free unless given.
        start : {"noise", "reference", "data"} or Tensor (n, pen + labels)
            Where the top machine's chains start: see `gibbsian.samplers.start`. The rows of `data` are
            brought to the top by a recognition pass, with random labels.
        generator : torch.Generator or int
            Source of all randomness, or a seed.
        data : Tensor (rows, visible), optional
            Needed for the starts reference and data.

        Raises
        ------
        GibbsianError
            If the network has no labels and one is asked for, or a setting is impossible.
        DataError
            If a class is one that the network never saw.
        """
        n = whole(n, "The number of chains")
        source = as_generator(generator, self.top)
        rows = None if data is None else self._to_top(data, source)
        clamp = None if label is None else self.labels.held(label, n)
        found = sample(self.top, n, steps, start=start, clamp=clamp, generator=source, data=rows)
        pen = found.samples[:, : self.pen]
        labels = self.labels.read(found.samples)
        if not self.down_layers:
            return Generated(pen, found.means[:, : self.pen], labels, found.samples)
        states = self.down(pen, source)
        with torch.no_grad():
            means = self.down_layers[0](states[1])
        return Generated(states[0], means, labels, found.samples)

    def _to_top(self, data: Tensor, generator: Generator) -> Tensor:
        self.check(data, "the rows to start from")
        pen = self.up(data.to(next(self.parameters())), generator)[-1]
        if not self.classes:
            return pen
        drawn = self.top.layers[0].domain.noise(len(pen), generator).to(pen)
        return torch.cat([pen, drawn[:, self.pen :]], dim=1)

    @torch.no_grad()
    def label_log_probabilities(
        self,
        v: Float[Tensor, "rows n"],
        passes: int = 0,
        generator: Generator | int | None = None,
    ) -> Float[Tensor, "rows classes"]:
        """Return log p(y | s_P) from the free energies of the labels, given the recognition pass of `v`.

        p(y | s_P) ∝ exp(−F(s_P, y)), F that of the top machine's visible side.

        Parameters
        ----------
        v : Tensor (rows, visible)
        passes : int
            Number of sampled recognition passes whose probabilities are averaged; 0 goes up once with
            the means.
        generator : torch.Generator or int
            Of the sampled passes.

        Raises
        ------
        GibbsianError
            If the network has no labels.
        DataError
            If the rows do not fit the visible layer.
        """
        self.check(v, "the rows to classify")
        passes = whole(passes, "The number of recognition passes", 0)
        source = as_generator(generator, self.top) if passes else None
        like = next(self.parameters())
        chunk = max(1, _CHUNK_ELEMENTS // (sum(self.sizes) + len(self.classes)))
        out = []
        for part in v.split(chunk):
            found = [
                self.labels.log_weights(self.up(part.to(like), source)[-1]).log_softmax(dim=1)
                for _ in range(max(passes, 1))
            ]
            out.append(torch.stack(found).logsumexp(dim=0).log_softmax(dim=1))
        return torch.cat(out)

    @torch.no_grad()
    def pen_log_weight(self, pen: Float[Tensor, "rows pen"]) -> Float[Tensor, " rows"]:
        """Return log Σ_{y,h} exp(−E_top(s_P, y, h)): the pen layer's log-probability, but for log Z."""
        if not self.classes:
            return -self.top.free_energy(pen)
        return self.labels.log_weights(pen).logsumexp(dim=1)

    @torch.no_grad()
    def transform(self, v: Float[Tensor, "rows n"], layer: int = -1) -> Float[Tensor, "rows units"]:
        """Return the mean state of each unit of a hidden layer given rows: a recognition pass of means.

        That of the top layer is E[h | s_P], over the labels Σ_y p(y | s_P) E[h | s_P, y].

        Parameters
        ----------
        v : Tensor (rows, visible)
        layer : int
            From 1, the first hidden layer, or from −1, the top one, downwards.

        Raises
        ------
        GibbsianError
            If there is no such hidden layer.
        DataError
            If the rows do not fit the visible layer.
        """
        wanted = hidden_layer(layer, len(self.sizes) - 1)
        self.check(v, "the rows")
        states = self.up(v.to(next(self.parameters())))
        if wanted < len(states):
            return states[wanted]
        pen, (hidden, joint) = states[-1], (self.top.layers[1], self.top.joints[0])
        if not self.classes:
            return unit.mean(hidden, joint.up(pen))
        share, total = self.labels.log_weights(pen).softmax(dim=1), pen.new_zeros(())
        for i, hot in enumerate(torch.eye(len(self.classes), dtype=pen.dtype, device=pen.device)):
            visible = torch.cat([pen, hot.expand(len(pen), -1)], dim=1)
            total = total + share[:, i : i + 1] * unit.mean(hidden, joint.up(visible))
        return total

    @property
    def joints(self) -> list[Connection]:
        """What leads from the visible layer to the top one, of the generative directions."""
        return [*(g.connection for g in self.down_layers), self.top.joints[0]]

    def classify(
        self,
        v: Float[Tensor, "rows n"],
        passes: int = 0,
        generator: Generator | int | None = None,
    ) -> Int64[Tensor, " rows"]:
        """Return the most probable class of each row: see `label_log_probabilities`."""
        found = self.label_log_probabilities(v, passes, generator).argmax(dim=1)
        return torch.tensor(self.classes, device=found.device)[found]

    def spec(self) -> dict[str, Any]:
        """Return plain values from which `from_spec` rebuilds the network, all but its parameters.

        ``fixed`` names those that are not learned; its dtype is that of the top machine.
        """
        return {
            "layers": [
                {"lower": families.spec(g.units), "upper": families.spec(r.units)}
                for g, r in zip(self.down_layers, self.up_layers, strict=True)
            ],
            "top": self.top.spec(),
            "classes": list(self.classes),
            "fixed": [k for k, p in self.named_parameters() if not p.requires_grad],
        }


def _check_layers(network: DeepBeliefNetwork) -> None:
    """Raise a `GibbsianError` unless the layers follow on each other."""
    down, up = network.down_layers, network.up_layers
    if len(down) != len(up):
        raise GibbsianError(
            f"A deep belief network has as many generative layers as recognition layers, not {len(down)} "
            f"and {len(up)}."
        )
    above = [*[g.units.size for g in down][1:], network.pen]
    for i, (g, r, n) in enumerate(zip(down, up, above, strict=False)):
        if (g.source, r.source, r.units.size) != (n, g.units.size, n):
            raise GibbsianError(
                f"Layer {i} of {g.units.size} units and layer {i + 1} of {n} units are joined by "
                f"connections of {g.units.size} to {g.source} and {r.source} to {r.units.size}; build the "
                "stack from machines whose sizes follow on each other."
            )


def stack(machines: Sequence[BoltzmannMachine], classes: Sequence[int] = ()) -> DeepBeliefNetwork:
    """Stack trained RBMs: the last becomes the top machine, the others are untied.

    The parameters of the lower machines are copied twice, to generative and to recognition layers; the
    top machine is taken as it is.

    Raises
    ------
    GibbsianError
        If there is none, or their sizes do not follow on each other.
    """
    if not machines:
        raise GibbsianError("A stack needs at least one machine.")
    for i, m in enumerate(machines):
        if len(m.layers) != 2:
            raise GibbsianError(
                f"A stack is made of machines with one hidden layer, and number {i + 1} has "
                f"{len(m.layers) - 1}."
            )
    down = [
        Directed(copy.deepcopy(m.layers[0]), copy.deepcopy(m.joints[0]), upwards=False)
        for m in machines[:-1]
    ]
    up = [
        Directed(copy.deepcopy(m.layers[1]), copy.deepcopy(m.joints[0]), upwards=True)
        for m in machines[:-1]
    ]
    return DeepBeliefNetwork(down, up, machines[-1], classes)


def lowered(network: DeepBeliefNetwork, precision: str = "bf16") -> DeepBeliefNetwork:
    """Return a network that shares all parameters, with its products in another precision.

    See `gibbsian.precision`; with "fp32" it is the network itself.
    """
    if precision == "fp32":
        return network
    pairs = list(zip(network.down_layers, network.up_layers, strict=True))
    down, up = (
        [
            Directed(
                layer.units,
                precisions.rounded(layer.connection, low.units, high.units),
                layer.upwards,
            )
            for layer, (low, high) in zip(layers, pairs, strict=True)
        ]
        for layers in (network.down_layers, network.up_layers)
    )
    return DeepBeliefNetwork(down, up, precisions.lowered(network.top, precision), network.classes)


def from_spec(spec: Mapping[str, Any]) -> DeepBeliefNetwork:
    """Build the network that `DeepBeliefNetwork.spec` described, with parameters at their start.

    Raises
    ------
    GibbsianError
        If the description lacks a part, or names a parameter that there is not.
    """
    missing = sorted({"layers", "top", "classes"} - set(spec))
    if missing:
        raise GibbsianError(f"The description of a network lacks its {' and '.join(missing)}.")
    down, up = [], []
    for entry in spec["layers"]:
        low, high = families.from_spec(entry["lower"]), families.from_spec(entry["upper"])
        down.append(Directed(low, Dense(low.size, high.size), upwards=False))
        up.append(Directed(high, Dense(low.size, high.size), upwards=True))
    top = models.from_spec(spec["top"])
    network = DeepBeliefNetwork(down, up, top, spec["classes"]).to(next(top.parameters()).dtype)
    named = dict(network.named_parameters())
    for name in spec.get("fixed", ()):
        if name not in named:
            raise GibbsianError(f"The network has no parameter {name!r} to hold fixed.")
        named[name].requires_grad_(False)
    return network


__all__ = ["DeepBeliefNetwork", "Generated", "from_spec", "stack", "with_labels"]
