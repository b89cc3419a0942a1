"""A queue of one: long work runs in one thread, tells how far it is, and can be cancelled."""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from piu_lora.errors import PiuLoraError

__all__ = ["Cancelled", "Job", "WorkQueue"]

_log = logging.getLogger("piu_lora")
State = Literal["waiting", "running", "done", "failed", "cancelled"]
_CURVE = 400  # points of a loss curve that are kept


class Cancelled(KeyboardInterrupt):
    """The visitor asked to stop; a job leaves nothing behind, as when it is interrupted."""


@dataclass(eq=False)
class Job:
    """A piece of work of one visitor.

    Attributes:
        title: what it does, for people.
        work: given the job; tells it how far it is and what there is to see.
        label, total, count: of the bar at hand.
        terms: the last terms of a loss.
        losses: the total loss by step.
        result: what there is to see so far.
        version: rises with everything that tells how far it is.
        shown: rises with everything that there is to see.
    """

    title: str
    work: Callable[["Job"], None]
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "waiting"
    label: str = ""
    total: int = 0
    count: int = 0
    terms: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    result: Any = None
    error: str = ""
    started: float = 0.0
    seconds: float = 0.0
    version: int = 0
    shown: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _bar_started: float = 0.0

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "running")

    @property
    def left(self) -> float | None:
        """About how many seconds the bar at hand still takes; None where nothing is known yet."""
        if not self.count or not self.total:
            return None
        return (time.monotonic() - self._bar_started) / self.count * (self.total - self.count)

    def show(self, result: Any) -> None:
        """Put something before the visitor, while the work goes on."""
        self.result = result
        self.shown += 1

    def cancel(self) -> None:
        """Ask it to stop at its next step."""
        self._stop.set()
        self.version += 1

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raise ``Cancelled`` where it was asked to stop."""
        if self._stop.is_set():
            raise Cancelled

    @contextmanager
    def progress(self, label: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """The ``Progress`` that jobs of the library are given."""
        self.check()
        self.label, self.total, self.count = label, total, done
        self._bar_started = time.monotonic()
        self.version += 1

        def advance(count: int = 1, **terms: float) -> None:
            self.check()
            self.count += count
            if terms:
                self.terms = terms
                self.losses.append(terms.get("loss", sum(terms.values())))
                del self.losses[:-_CURVE]
            self.version += 1

        yield advance


class WorkQueue:
    """Runs jobs one after the other in a thread of its own."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running: Job | None = None
        self._thread = threading.Thread(target=self._run, name="studio", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> Job:
        """Put a job at the end."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job at its next step; one that waits goes at once."""
        job.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"
                job.version += 1

    def ahead(self, job: Job) -> int:
        """How many jobs come first."""
        with self._changed:
            waiting = list(self._waiting)
            return waiting.index(job) + (self._running is not None) if job in waiting else 0

    def close(self, seconds: float = 10.0) -> None:
        """Cancel everything, and wait a little for the job at hand."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            if self._running is not None:
                self._running.cancel()
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
            _finish(job)
            with self._changed:
                self._running = None


def _finish(job: Job) -> None:
    job.state, job.started = "running", time.monotonic()
    job.version += 1
    try:
        job.check()
        job.work(job)
        state: State = "done"
    except Cancelled:
        state = "cancelled"
    except PiuLoraError as error:
        state, job.error = "failed", str(error)
    except Exception:  # the queue outlives every job
        _log.exception("a job of the studio failed")
        state, job.error = "failed", "something unexpected went wrong; the terminal of the studio says what"
    job.seconds = time.monotonic() - job.started
    job.state = state
    job.version += 1
