"""What the hub does wrong on request: refusals, broken connections, delays and damaged bytes."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["fail", "drop", "slow", "cut", "truncate", "corrupt"]
Match = str | re.Pattern[str]


class HubError(Exception):
    """An answer of 4xx or 5xx with the headers from which the client picks its exception."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


@dataclass
class Fault:
    """One thing to do wrong; times counts down, None means for ever."""

    kind: Kind
    match: Match
    times: int | None = 1
    method: str | None = None
    status: int = 500
    code: str | None = None
    message: str = "a fault of the loopback hub"
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 100
    seconds: float = 0.0

    def strikes(self, method: str, path: str) -> bool:
        if self.times == 0 or self.method not in (None, method):
            return False
        return self.match in path if isinstance(self.match, str) else self.match.search(path) is not None


class Faults:
    """The faults still to strike, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str, *kinds: Kind) -> Fault | None:
        """The first fault of these kinds that strikes this request, counted as having struck."""
        with self._lock:
            for fault in self._faults:
                if fault.kind in kinds and fault.strikes(method, path):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None
