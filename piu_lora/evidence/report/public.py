"""Reports put together: a new section beside an older one, and the public form.

The public form leaves the evidence; what describes the forgotten person individually goes. Left out: the
counts of their photographs, the distributions of their scores, the map of the people around them, whom their
images now resemble, the anchor's bank id, and free text written at run time about what could not be done (it
may count their photographs). Left in: every figure that is a mean or a share over generated images, since a
claim to have forgotten without them is only a claim.
"""

from typing import TypeVar

from pydantic import JsonValue

from piu_lora.documents import Document
from piu_lora.errors import BadInput
from piu_lora.evidence.report.document import Report, Verdict
from piu_lora.evidence.report.sections import Audit, Doubles, Evaluation, Recognizer, References

__all__ = ["PRIVATE_REASON", "merged", "publishable"]

PRIVATE_REASON = "not measured; the owner's report says why"
D = TypeVar("D", bound=Document)


def merged(old: Report, new: Report) -> Report:
    """A new run's report with the sections of an older one that the new run does not write.

    Everything else (environment, seed, settings) is the new run's; so is the verdict, unless the new run
    judged nothing. A public report stays public: the older one's sections are laid in by their public form.

    Raises:
        BadInput: the two are about different weights.
    """
    before, after = (report.adapter.weights_sha256 for report in (old, new))
    if before != after:
        raise BadInput(
            f"the report there is about other weights ({before[:12]}, this adapter has {after[:12]}); "
            "choose another folder or remove it"
        )
    older = publishable(old) if new.public else old
    updates = {
        name: getattr(older, name)
        for name in ("verdict", "person", "audit", "evaluation")
        if getattr(new, name) is None and getattr(older, name) is not None
    }
    return new.model_copy(update=updates)


def publishable(report: Report) -> Report:
    """A copy with nothing about, and nothing to draw an image of, the forgotten person; the same for a public
    report.
    """
    updates: dict[str, object] = {
        "public": True,
        "person": None,
        "settings": _settings(report.settings),
        "verdict": report.verdict and _verdict(report.verdict),
    }
    if report.evaluation is not None:
        updates["evaluation"] = _evaluation(report.evaluation)
    if report.audit is not None:
        updates["audit"] = _audit(report.audit)
    return report.model_copy(update=updates)


def _settings(settings: dict[str, JsonValue]) -> dict[str, JsonValue]:
    anchor = settings.get("anchor")
    if isinstance(anchor, dict) and "identity" in anchor:
        return {**settings, "anchor": {**anchor, "identity": ""}}
    return settings


def _verdict(verdict: Verdict) -> Verdict:
    lines = tuple(
        line.model_copy(update={"reason": PRIVATE_REASON if line.value is None else ""})
        for line in verdict.lines
    )
    return verdict.model_copy(update={"lines": lines})


def _evaluation(evaluation: Evaluation) -> Evaluation:
    updates: dict[str, object] = {
        "notes": (),
        "recognizers": {name: _recognizer(recognizer) for name, recognizer in evaluation.recognizers.items()},
    }
    if evaluation.doubles is not None:
        updates["doubles"] = Doubles(count=evaluation.doubles.count)
    return evaluation.model_copy(update=updates)


def _recognizer(recognizer: Recognizer) -> Recognizer:
    updates: dict[str, object] = {
        "bystanders": {
            far: bystanders and _without(bystanders, "landing")
            for far, bystanders in recognizer.bystanders.items()
        }
    }
    if recognizer.references.refused:
        updates["references"] = References(refused=PRIVATE_REASON)
    return _without(recognizer, "scores", "neighbours").model_copy(update=updates)


def _without(document: D, *names: str) -> D:
    """A copy in which some keys are absent."""
    return type(document)(
        **{name: getattr(document, name) for name in document.model_fields_set if name not in names}
    )


def _audit(audit: Audit) -> Audit:
    attacks = tuple(
        attack.model_copy(update={"finding": PRIVATE_REASON}) if attack.succeeded is None else attack
        for attack in audit.attacks
    )
    return audit.model_copy(update={"attacks": attacks})
