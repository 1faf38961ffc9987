"""Other packages, each driven the way its own documentation or training loop does it.

A peer that is not installed raises `ModuleNotFoundError` where it is first asked for something, and
the contest goes on without it.
"""

from importlib import metadata
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import Work


class Peer(Protocol):
    """What is asked of a peer with one kind of machine, the binary RBM."""

    name: str
    package: str
    trains: str

    def sweep(self, weight: Tensor, chains: int, count: int) -> Work:
        """Gibbs sweeps of chains that go on from call to call."""
        ...

    def epoch(self, rows: Tensor, hidden: int, batch: int) -> Work:
        """One pass over the rows, with an update a batch."""
        ...


class ScikitLearn:
    """`BernoulliRBM`, in the dtype of its weights."""

    name, package, trains = "scikit-learn", "scikit-learn", "PCD-1, float32"

    def model(self, weight: Tensor, batch: int, dtype: Any = np.float32) -> Any:
        from sklearn.neural_network import BernoulliRBM

        visible, hidden = weight.shape
        made = BernoulliRBM(hidden, batch_size=batch, n_iter=0, learning_rate=0.01, random_state=0)
        # No iteration: fit makes the arrays, in the dtype of the rows.
        made.fit(np.zeros((batch, visible), dtype))
        made.components_ = np.asfortranarray(weight.numpy().T.astype(dtype))
        made.random_state_ = np.random.RandomState(0)
        return made

    def sweep(self, weight: Tensor, chains: int, count: int, dtype: Any = np.float32) -> Work:
        made = self.model(weight, chains, dtype)
        v = np.random.RandomState(1).uniform(size=(chains, len(weight))) < 0.5

        def work() -> None:
            nonlocal v
            for _ in range(count):
                v = made.gibbs(v)

        return work

    def epoch(self, rows: Tensor, hidden: int, batch: int) -> Work:
        made = self.model(0.01 * torch.randn(rows.shape[1], hidden), batch)
        batches, rng = np.split(rows.numpy(), len(rows) // batch), np.random.RandomState(0)

        def work() -> None:
            for x in batches:  # the loop of fit, without the new start that fit makes
                made._fit(x, rng)

        return work


class Rbms:
    """`rbms`: its own training step, with its defaults (centred gradient)."""

    name, package, trains = "rbms", "rbms", "PCD-1"

    def model(
        self, weight: Tensor, visible: Tensor | None = None, hidden: Tensor | None = None
    ) -> Any:
        from rbms.bernoulli_bernoulli.classes import BBRBM

        v, h = weight.shape
        return BBRBM(
            weight_matrix=weight.clone(),
            vbias=torch.zeros(v) if visible is None else visible.clone(),
            hbias=torch.zeros(h) if hidden is None else hidden.clone(),
        )

    def sweep(self, weight: Tensor, chains: int, count: int) -> Work:
        made = self.model(weight)
        state = made.init_chains(chains)

        @torch.no_grad()
        def work() -> None:
            nonlocal state
            state = made.sample_state(chains=state, n_steps=count, beta=1.0)

        return work

    def epoch(self, rows: Tensor, hidden: int, batch: int) -> Work:
        from rbms.training.pcd import fit_batch_pcd

        made = self.model(0.01 * torch.randn(rows.shape[1], hidden))
        optimizer = torch.optim.SGD(made.parameters(), lr=0.01, maximize=True)
        for p in made.parameters():
            p.grad = torch.zeros_like(p)
        state, weights = made.init_chains(batch), torch.ones(len(rows), 1)

        @torch.no_grad()
        def work() -> None:
            nonlocal state
            for _ in range(len(rows) // batch):
                picked = torch.randperm(len(rows))[:batch]
                optimizer.zero_grad(set_to_none=False)
                pair = rows[picked], weights[picked]
                state, _ = fit_batch_pcd(pair, state, made, gibbs_steps=1, beta=1.0)
                optimizer.step()

        return work

    def log_z(
        self, weight: Tensor, visible: Tensor, hidden: Tensor, chains: int, temperatures: int
    ) -> float:
        """Anneal over `temperatures` even steps from W = 0, hidden biases 0; return log Z."""
        from rbms.partition_function.ais import compute_partition_function_ais

        made = self.model(weight, visible, hidden)
        with torch.no_grad():
            return compute_partition_function_ais(chains, temperatures + 1, made)


class Learnergy:
    """`learnergy`: CD-1 only; its `fit` also forms the pseudo-likelihood of every batch."""

    name, package, trains = "learnergy", "learnergy", "CD-1"

    def model(self, visible: int, hidden: int) -> Any:
        from learnergy.models.bernoulli import RBM

        return RBM(visible, hidden, steps=1, learning_rate=0.01)

    def sweep(self, weight: Tensor, chains: int, count: int) -> Work:
        made = self.model(*weight.shape)
        with torch.no_grad():
            made.W.copy_(weight)
        v = torch.bernoulli(torch.full((chains, len(weight)), 0.5))

        @torch.no_grad()
        def work() -> None:
            nonlocal v
            for _ in range(count):
                _, h = made.hidden_sampling(v)
                _, v = made.visible_sampling(h)

        return work

    def epoch(self, rows: Tensor, hidden: int, batch: int) -> Work:
        from learnergy.core import Dataset

        made = self.model(rows.shape[1], hidden)
        data = Dataset(rows, torch.zeros(len(rows)), show_log=False)
        return lambda: made.fit(data, batch_size=batch, epochs=1)


PEERS: tuple[Peer, ...] = (ScikitLearn(), Rbms(), Learnergy())


def versions() -> dict[str, str]:
    """Return the version of each peer that is installed."""
    found = {}
    for peer in PEERS:
        try:
            found[peer.name] = metadata.version(peer.package)
        except metadata.PackageNotFoundError:
            continue
    return found
