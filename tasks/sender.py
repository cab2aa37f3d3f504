"""A thread that sends figures, so that the thread that trains never waits for a server.

What cannot be sent waits and is tried again, in order. When too much waits, or the work ends while the server is away,
it is given up: a line says how many figures are lost.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

BATCH = 900  # figures a call; MLflow takes 1000
EVERY_S = 3.0  # between two calls, where fewer wait
BOUND = 100_000  # figures that may wait: some hours of training
CLOSE_S = 30.0  # for the last call
log = logging.getLogger("iv.tracking")


class Sender:
    """Calls `send` with the figures that were `put`, a batch at a time."""

    def __init__(self, send: Callable[[list[Any]], None], every_s: float = EVERY_S, bound: int = BOUND) -> None:
        self._send, self._every_s, self._bound = send, every_s, bound
        self._waiting: list[Any] = []
        self._wake = threading.Condition()
        self._closing = self._failing = self._gave_up = False
        self._thread = threading.Thread(target=self._run, name="figures", daemon=True)
        self._thread.start()

    def put(self, figures: Sequence[Any]) -> None:
        """Have these sent soon; returns at once."""
        with self._wake:
            if not self._gave_up:
                self._waiting += figures
                if len(self._waiting) > self._bound:
                    self._give_up()
                self._wake.notify()

    def close(self) -> None:
        """Return when everything is sent, or given up."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_S)
        with self._wake:
            if self._waiting:
                self._give_up()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(self._is_due, self._every_s)
                part, last = self._waiting[:BATCH], self._closing
            if part:
                self._try(part)
            if last and (self._failing or not part):
                return

    def _is_due(self) -> bool:
        return self._closing or (len(self._waiting) >= BATCH and not self._failing)

    def _try(self, part: list[Any]) -> None:
        try:
            self._send(part)
        except Exception as e:  # whatever the server says, the work goes on
            if not self._failing:
                words = (str(e).splitlines() or [""])[0][:300]
                log.warning(
                    "MLflow could not log figures: %s: %s; they wait, and the run goes on", type(e).__name__, words
                )
            self._failing = True
        else:
            self._failing = False
            with self._wake:
                self._waiting = self._waiting[len(part) :]

    def _give_up(self) -> None:
        log.warning("MLflow does not answer: %d figures of this step are lost, and it gets no more", len(self._waiting))
        self._waiting, self._gave_up = [], True
