"""The three questions that a verdict answers, each from its own lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from piu_lora.evidence.report.document import Verdict, VerdictLine

__all__ = ["MARKS", "Answer", "Mood", "answers_of", "mood_of", "verdict_word"]

Mood = Literal["good", "bad", "unknown"]
MARKS: dict[Mood, str] = {"good": "✓", "bad": "✗", "unknown": "?"}
_UNHARMED = (
    "random_ism",
    "nearest_ism",
    "anchor_ism",
    "random_verified",
    "nearest_verified",
    "landing",
    "sharpness",
    "kid",
)
_BELIEVED = ("seen_before", "strangers", "doubles")
_QUESTIONS = {
    "forgotten": "Is the person forgotten?",
    "unharmed": "Are the others unharmed?",
    "believed": "Can these figures be believed?",
}
_WORDS: dict[Mood, str] = {"good": "Yes", "bad": "No", "unknown": "Not judged"}
_VERDICTS: dict[Mood, str] = {"good": "Passed", "bad": "Falls short", "unknown": "Not judged"}


@dataclass(frozen=True)
class Answer:
    """One question, and the lines of the verdict that answer it."""

    question: str
    lines: tuple[VerdictLine, ...]

    @property
    def missed(self) -> tuple[VerdictLine, ...]:
        """The lines that do not pass."""
        return tuple(line for line in self.lines if not line.passed)

    @property
    def met(self) -> tuple[VerdictLine, ...]:
        """The lines that pass."""
        return tuple(line for line in self.lines if line.passed)

    @property
    def mood(self) -> Mood:
        """How it turned out."""
        return "unknown" if not self.lines else "bad" if self.missed else "good"

    @property
    def word(self) -> str:
        """The answer in a word; where nothing but a measurement is missing, it was not shown."""
        unmeasured = bool(self.missed) and all(line.value is None for line in self.missed)
        return "Not shown" if unmeasured else _WORDS[self.mood]

    @property
    def count(self) -> str:
        """The answer as a count of conditions."""
        if not self.lines:
            return "no condition was asked for"
        return f"{len(self.met)} of {len(self.lines)} conditions are met"


def answers_of(verdict: Verdict | None) -> list[Answer]:
    """The three answers; an attack's figures speak to whether the person is forgotten."""
    lines: Sequence[VerdictLine] = () if verdict is None else verdict.lines
    sorted_lines: dict[str, list[VerdictLine]] = {key: [] for key in _QUESTIONS}
    for line in lines:
        key = "unharmed" if line.name in _UNHARMED else "believed" if line.name in _BELIEVED else "forgotten"
        sorted_lines[key].append(line)
    return [Answer(question, tuple(sorted_lines[key])) for key, question in _QUESTIONS.items()]


def mood_of(verdict: Verdict | None) -> Mood:
    """The mood of a whole verdict."""
    return "unknown" if verdict is None else "good" if verdict.passed else "bad"


def verdict_word(verdict: Verdict | None) -> str:
    """A whole verdict in a word or two."""
    return _VERDICTS[mood_of(verdict)]
