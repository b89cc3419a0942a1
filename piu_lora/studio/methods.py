"""What to expect of a method before it has run here."""

from collections.abc import Mapping

__all__ = ["FIRST_METHOD", "MethodTimes"]

FIRST_METHOD = "closed-encoder"
# Seconds of making an adapter on the embedded base, one thread of a busy machine (docs/results.md, "Methods
# side by side").
_MEASURED: Mapping[str, Mapping[str, float]] = {
    "mini": {
        "closed-kv": 0.5,
        "closed-encoder": 0.8,
        "closed-both": 0.9,
        "piu-warm": 16.4,
        "distil-encoder": 66.9,
        "piu": 72.7,
        "distil-both": 95.7,
    }
}


class MethodTimes:
    """How long a method takes: as it took here before, else as it was measured on the embedded base."""

    def __init__(self, base: str) -> None:
        self._here: dict[str, float] = {}
        self._measured = _MEASURED.get(base, {})

    def took(self, method: str, seconds: float) -> None:
        """Remember how long a method took here."""
        self._here[method] = seconds

    def words(self, method: str) -> str:
        """The expected seconds, for people; empty where nothing is known."""
        if method in self._here:
            return f"{self._rounded(self._here[method])} here"
        if method in self._measured:
            return f"about {self._rounded(self._measured[method])}"
        return ""

    @staticmethod
    def _rounded(seconds: float) -> str:
        return "1 s" if seconds < 1.5 else f"{seconds:.0f} s"
