"""An evaluation in short: the figures that receipts carry. They name nobody."""

from typing import Any

from piu_lora.evidence.evaluation import Evaluation

__all__ = ["summary"]

_IN_RECEIPTS = (
    "ism",
    "recognised",
    "no_face",
    "before",
    "after",
    "thresholds",
    "verified",
    "leak",
    "strangers",
)


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Figures by recognizer, as receipts carry them: none that describes the forgotten person beyond how well
    they are forgotten.
    """
    figures = {
        name: {key: scores[key] for key in _IN_RECEIPTS if key in scores}
        for name, scores in evaluation.figures.items()
    }
    return {"recognizers": figures, "images": len(evaluation.plan.shots)}
