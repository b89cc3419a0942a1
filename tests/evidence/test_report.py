import json
from typing import Any

import torch

from piu_lora.evidence import Evaluation, Plan, report_table, summary
from piu_lora.evidence.plan import Shot
from piu_lora.groups import GROUPS


def scores(
    forget: float = 0.2, random: float = 0.95, nearest: float = 0.9, acc_u: float = 0.04
) -> dict[str, Any]:
    ratios = dict(zip(GROUPS, (forget, random, nearest, 1.0), strict=True))
    ism = {
        group: {
            "before": 0.8,
            "after": 0.8 * ratio,
            "ratio": ratio,
            "ratio_interval": (ratio - 0.05, ratio + 0.05),
        }
        for group, ratio in ratios.items()
    }
    recognised = {
        group: {"before": {"mean": 1.0}, "after": {"mean": acc_u if group == "forget" else 0.88}}
        for group in GROUPS
    }
    return {
        "ism": ism,
        "recognised": recognised,
        "no_face": {},
        "after": {"acc_u": acc_u, "acc_r": 0.9, "srk": 18.0},
    }


def test_the_table_is_aligned_and_holds_every_figure() -> None:
    lines = report_table({"arc": scores(), "a longer name": scores(forget=0.123)}).splitlines()
    assert len(lines) == 2 + 2 * len(GROUPS) + 2
    assert lines[2].split() == [
        "arc",
        "forgotten",
        "0.800",
        "0.160",
        "0.200",
        "[0.150,",
        "0.250]",
        "1.00",
        "->",
        "0.04",
    ]
    assert lines[6].startswith("a longer name  forgotten")
    column = lines[0].index("ISM before")
    assert all(line[column : column + 5] == "0.800" for line in lines[2:10])
    assert lines[-2:] == [f"{name}: AccU 0.04, AccR 0.90, SRK 18.0" for name in ("arc", "a longer name")]


def test_pictures_without_a_face_are_told_where_there_are_any() -> None:
    figures = scores()
    figures["no_face"] = {
        "forget": {"before": 0, "after": 2, "n": 48},
        "random": {"before": 0, "after": 0, "n": 48},
    }
    assert (
        report_table({"arc": figures}).splitlines()[-1]
        == "arc: images without a face (cosine 0, nobody): forgotten 0 -> 2"
    )
    figures["no_face"]["forget"]["after"] = 0
    assert "without a face" not in report_table({"arc": figures})


def test_the_summary_names_nobody() -> None:
    plan = Plan(tuple(Shot(group, 3, torch.full((4,), 0.123), 8675309) for group in GROUPS))
    evaluation = Evaluation(plan, torch.zeros(4, 3, 2, 2), torch.zeros(4, 3, 2, 2), {"arc": scores()})
    figures = summary(evaluation)
    assert figures["images"] == 4
    assert figures["recognizers"] == evaluation.figures
    assert not any(word in json.dumps(figures) for word in ("embedding", "0.123", "8675309", "row"))
