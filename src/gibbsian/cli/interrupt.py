"""Ctrl-C while a machine is trained: the update at hand is finished, and the state is saved."""

import signal
import threading
from typing import TYPE_CHECKING, Any

from gibbsian.callbacks import Callback

if TYPE_CHECKING:
    from gibbsian.training import Trainer


class StopOnInterrupt(Callback):
    """Ends training after the update in which Ctrl-C comes; a second Ctrl-C ends it at once.

    An exception in the middle of an update would leave chains, parameters and generators that do not
    belong together, and a checkpoint of those could not be resumed bit for bit.

    Attributes
    ----------
    asked : bool
        Whether Ctrl-C came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def on_start(self, trainer: "Trainer") -> None:
        """Take over the signal."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_update(self, trainer: "Trainer") -> None:
        """Have the trainer take its measures, save and return."""
        if self.asked:
            trainer.stop("interrupted")

    def on_end(self, trainer: "Trainer") -> None:
        """Give the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
