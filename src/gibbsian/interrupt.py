"""Ctrl-C while a machine is trained: the update at hand is finished first."""

import signal
import threading
from types import FrameType
from typing import Any


class Deferred:
    """Notes the first Ctrl-C within a ``with`` block; a second one interrupts at once.

    An exception in the middle of an update would leave chains, parameters and generators that do
    not belong together, and a checkpoint of those could not be resumed bit for bit.

    Attributes
    ----------
    asked : bool
        Whether Ctrl-C came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "Deferred":
        self.asked = False
        # Only the main thread gets signals; and whoever ignores this one (nohup) goes on to.
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before not in (None, signal.SIG_IGN):
                self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
