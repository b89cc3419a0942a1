"""A document with every section, its figures drawn from a formula: plausible in size, measured nowhere."""

import io
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from piu_lora.evidence.report import Pictures, Report, report_of
from tests.evidence.report.example_audit import audit
from tests.evidence.report.example_verdict import verdict as verdict

GROUPS = {"forget": (0.71, 0.11), "random": (0.72, 0.70), "nearest": (0.70, 0.64), "anchor": (0.73, 0.72)}
FARS = ("0.01", "0.001", "0.0001")


def document() -> dict[str, Any]:
    """A fresh valid private report."""
    return {
        "format": "piu_lora.report/2",
        "public": False,
        "adapter": {
            "id": "9814e0fb69f07257",
            "method": "piu",
            "weights_sha256": "ab" * 32,
            "bytes": 204800,
            "people": 1,
        },
        "base": {"id": "arc2face-mini", "family": "mini", "revision": None},
        "environment": {
            "libraries": {"torch": "2.13.0", "diffusers": "0.42.1", "peft": "0.21.0", "piu_lora": "0.5.0"},
            "device": "cpu",
            "dtype": "fp32",
            "threads": 2,
            "platform": "Linux-6.1-x86_64",
        },
        "seed": 42,
        "settings": {
            "method": "piu",
            "seed": 42,
            "anchor": {"rule": "proximity", "identity": "", "tau": 0.2},
            "train": {"steps": 400},
        },
        "person": {"people": 1, "train": 6, "held_out": 3, "references": 6},
        "verdict": verdict(),
        "evaluation": evaluation(),
        "audit": audit(),
    }


def _around(value: float, half: float) -> list[float]:
    return [max(value - half, 0.0), min(value + half, 1.0)]


def _mean(value: float, half: float = 0.04, n: int = 48) -> dict[str, Any]:
    return {"mean": value, "interval": _around(value, half), "n": n}


def _ism(before: float, after: float, n: int) -> dict[str, Any]:
    ratio = after / before
    return {
        "before": before,
        "before_interval": _around(before, 0.02),
        "after": after,
        "after_interval": _around(after, 0.03),
        "ratio": ratio,
        "ratio_interval": [ratio - 0.05, ratio + 0.05],
        "n": n,
        "people": 1 if n < 30 else 10,
        "difference": {
            "mean": after - before,
            "interval": [after - before - 0.04, after - before + 0.04],
            "p": 0.0005 if before > 2 * after else 0.21,
        },
    }


def recognizer(role: str, shift: float, strict: bool) -> dict[str, Any]:
    levels = dict(zip(FARS, (0.357 + shift, 0.472 + shift, 0.561 + shift), strict=True))
    thresholds = {far: {"cosine": level, "pairs": 9427968, "refused": ""} for far, level in levels.items()}
    if not strict:
        thresholds["0.0001"] = {
            "cosine": None,
            "pairs": 900,
            "refused": "900 impostor pairs cannot show a rate of 0.0001; at least 30000 are needed",
        }
    known = [far for far in FARS if thresholds[far]["cosine"] is not None]
    after = {
        group: value + (shift if group == "forget" else -shift / 2) for group, (_, value) in GROUPS.items()
    }
    found = {
        "role": role,
        "thresholds": thresholds,
        "references": {"refused": ""},
        "ism": {
            group: _ism(before, after[group], 25 if group == "forget" else 60)
            for group, (before, _) in GROUPS.items()
        },
        "recognised": {
            group: {"before": _mean(0.99), "after": _mean(0.0 if group == "forget" else 0.95)}
            for group in GROUPS
        },
        "verified": dict.fromkeys(FARS),
        "strangers": {far: _mean(float(far) * 1.3, 0.002) if far in known else None for far in FARS},
        "no_face": {
            group: {"before": 0, "after": 2 if group == "forget" else 0, "n": 48} for group in GROUPS
        },
        "before": {"acc_u": 1.0, "acc_r": 0.97, "srk": 0.96},
        "after": {"acc_u": 0.0, "acc_r": 0.95, "srk": 95.0},
        "leak": dict.fromkeys(FARS),
        "bystanders": dict.fromkeys(FARS),
        "scores": _scores(shift),
        "neighbours": _neighbours(),
    }
    for place, far in enumerate(known):
        leaked = max(0.12 - 0.05 * place + shift, 0.0)
        found["verified"][far] = {
            group: {
                "before": _mean(0.98 - 0.03 * place),
                "after": _mean(leaked if group == "forget" else 0.94 - 0.04 * place),
                "difference": {"mean": -0.8, "interval": [-0.9, -0.7], "p": 0.0005},
                "people": {"before": 1.0, "after": 0.0},
            }
            for group in GROUPS
        }
        found["leak"][far] = {str(k): {"before": 1.0, "after": 1 - (1 - leaked) ** k} for k in (1, 8)} | {
            "64": {"before": 1.0, "after": None}
        }
        found["bystanders"][far] = {
            "expected": float(far) * 1020,
            "before": _mean(float(far) * 900 / 10, 0.1),
            "after": _mean(0.9, 0.2),
            "landing": {"before": 0.02, "after": 0.93, "is_anchor": True},
        }
    return found


def _scores(shift: float) -> dict[str, Any]:
    edges = np.linspace(-0.6, 1.0, 65)
    middles = (edges[1:] + edges[:-1]) / 2

    def bell(mean: float, width: float) -> list[float]:
        return [
            round(float(value), 5)
            for value in np.exp(-(((middles - mean) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
        ]

    parts = {
        "impostor": bell(0.02, 0.13),
        "forget_before": bell(0.71, 0.06),
        "forget_after": bell(0.12 + shift, 0.11),
        "retained_after": bell(0.69, 0.07),
    }
    return {"bins": edges.round(6).tolist(), **parts}


def _neighbours(count: int = 8) -> dict[str, Any]:
    noise = np.random.default_rng(0)
    base = 0.25 + 0.15 * noise.standard_normal((count, count))
    base = np.clip((base + base.T) / 2, -0.1, 0.55)
    np.fill_diagonal(base, 0.71)
    after = base.copy()
    after[0] = base[1] * 0.95
    return {
        "labels": ["forgotten", "anchor", *(f"near {place}" for place in range(1, count - 1))],
        "before": base.round(4).tolist(),
        "after": after.round(4).tolist(),
    }


def evaluation() -> dict[str, Any]:
    change = {"before": 0.0123, "after": 0.0115, "ratio": 0.931, "ratio_interval": [0.88, 0.98]}
    kid = {
        "before": {"mean": 12.1, "interval": [10.0, 14.2]},
        "after": {"mean": 13.4, "interval": [11.1, 15.6]},
        "delta": {"mean": 1.3, "interval": [0.2, 2.4]},
    }
    return {
        "seconds": 61.2,
        "images": 320,
        "recognizers": {
            "conditioning": recognizer("conditions the base", 0.0, True),
            "evaluating": recognizer("only evaluates", 0.09, False),
        },
        "agreement": {
            far: {"both": 2, "only": {"conditioning": 1, "evaluating": 6}, "neither": 37, "no_face": 2}
            if place < 2
            else None
            for place, far in enumerate(FARS)
        },
        "quality": {
            "kid": {
                "features": "embeddings of the evaluating recognizer",
                "times": 1000,
                "forget": kid,
                "retain": kid,
            },
            "sharpness": {"forget": change, "retain": change},
            "face_quality": None,
        },
        "doubles": {"count": 0},
        "sweeps": [
            _sweep("guidance", "guidance scale", (1.0, 1.5, 3.0, 5.0, 7.5)),
            _sweep("weight", "adapter weight", (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)),
            _sweep("precision", "precision", ("fp32", "bf16", "fp16", "int8 weights")),
        ],
        "notes": [
            "No face quality model is at hand, so face quality was not measured.",
            "Leak@64 needs 64 images, and 48 were made.",
        ],
    }


def _sweep(name: str, label: str, values: tuple[float, ...] | tuple[str, ...]) -> dict[str, Any]:
    points = []
    for place, value in enumerate(values):
        share = place / (len(values) - 1)
        forget = {
            "before": 0.66 + 0.06 * share,
            "after": max(0.7 - 0.65 * share, 0.1) if name == "weight" else 0.1 + 0.12 * share,
        }
        point = {
            "forget": {**forget, "verified_before": 1.0, "verified": 0.0},
            "random": {"before": 0.7, "after": 0.70 - 0.03 * share, "verified_before": 1.0, "verified": 0.98},
            "nearest": {
                "before": 0.69,
                "after": 0.68 - 0.09 * share,
                "verified_before": 0.97,
                "verified": 0.9,
            },
        }
        points.append({"value": value, "recognizers": {"conditioning": point, "evaluating": point}})
    return {"name": name, "label": label, "unit": "", "points": points}


def png(colour: str, size: tuple[int, int] = (128, 128), words: str = "") -> bytes:
    """A PNG file of one colour with words on it."""
    picture = Image.new("RGB", size, colour)
    ImageDraw.Draw(picture).text((8, 8), words, fill="white")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def pictures() -> Pictures:
    """A sheet."""
    return Pictures(png("#8899aa", (900, 700), "a sheet"))


def report(**changes: Any) -> Report:
    """The document as a report, some keys changed."""
    return report_of({**document(), **changes})
