"""The trials of a search: read from its study, and drawn."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Trial", "read_trials", "trials_picture"]


@dataclass(frozen=True)
class Trial:
    """A finished trial: its settings by name, and its score."""

    settings: dict[str, float]
    score: float


def read_trials(study: Any) -> list[Trial]:
    """Of an Optuna study, in the order they were begun; those that were stopped are left out."""
    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return [Trial(dict(trial.params), float(trial.value)) for trial in finished]


def trials_picture(trials: Sequence[Trial], settings: Mapping[str, bool]) -> bytes:
    """A PNG: the score of every trial and the best so far, then the score by each setting.

    Args:
        settings: names; whether an axis is logarithmic.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * (len(settings) + 1), 3.6), layout="constrained")
    panels = figure.subplots(1, len(settings) + 1, sharey=True, squeeze=False)[0]
    scores = np.array([trial.score for trial in trials])
    panels[0].plot(range(1, len(scores) + 1), scores, "o", color="#6b7280", markersize=4)
    panels[0].plot(
        range(1, len(scores) + 1), np.maximum.accumulate(scores), color="#0f766e", label="best so far"
    )
    panels[0].set(xlabel="trial", ylabel="score")
    panels[0].legend(frameon=False, fontsize=8)
    for axes, (name, log) in zip(panels[1:], settings.items(), strict=True):
        axes.scatter(
            [trial.settings[name] for trial in trials], scores, c=range(len(scores)), cmap="viridis", s=18
        )
        axes.set_xlabel(name)
        axes.set_xscale("log" if log else "linear")
    for axes in panels:
        axes.grid(alpha=0.25)
    # Failed trials would flatten all others.
    panels[0].set_ylim(max(float(scores.min()), float(scores.max()) - 1.5) - 0.05, float(scores.max()) + 0.05)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    return buffer.getvalue()
