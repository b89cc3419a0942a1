"""The public form of a report: the evidence stays, what describes the forgotten person individually goes.

Left out: the counts of their photographs, the distributions of their scores, the map of the people around
them, whom their images now resemble, the anchor's bank id, and free text written at run time about what could
not be done (it may count their photographs). Left in: every figure that is a mean or a share over generated
images, since a claim to have forgotten without them is only a claim.
"""

import copy
from typing import Any

__all__ = ["PRIVATE_REASON", "publishable"]

PRIVATE_REASON = "not measured; the owner's report says why"


def publishable(document: dict[str, Any]) -> dict[str, Any]:
    """A copy with nothing about, and nothing to draw an image of, the forgotten person; the same for a public
    document.
    """
    public = copy.deepcopy(document)
    public["public"], public["person"] = True, None
    public["settings"] = _settings(public["settings"])
    for line in (public["verdict"] or {"lines": ()})["lines"]:
        line["reason"] = PRIVATE_REASON if line["value"] is None else ""
    if public.get("evaluation") is not None:
        public["evaluation"]["notes"] = []
        if public["evaluation"].get("doubles"):
            public["evaluation"]["doubles"] = {"count": public["evaluation"]["doubles"]["count"]}
        for seen in public["evaluation"]["recognizers"].values():
            seen.pop("scores", None)
            seen.pop("neighbours", None)
            if seen.get("references", {}).get("refused"):
                seen["references"]["refused"] = PRIVATE_REASON
            for bystanders in seen["bystanders"].values():
                if bystanders is not None:
                    bystanders.pop("landing", None)
    for attack in (public.get("audit") or {"attacks": ()})["attacks"]:
        if attack["succeeded"] is None:
            attack["finding"] = PRIVATE_REASON
    return public


def _settings(settings: dict[str, Any]) -> dict[str, Any]:
    anchor = settings.get("anchor")
    if isinstance(anchor, dict) and "identity" in anchor:
        return {**settings, "anchor": {**anchor, "identity": ""}}
    return settings
