import json
from typing import Any

import torch

from piu_lora.evidence import Evaluation, Plan, summary
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


def test_the_summary_names_nobody() -> None:
    plan = Plan(tuple(Shot(group, 3, torch.full((4,), 0.123), 8675309) for group in GROUPS))
    evaluation = Evaluation(plan, torch.zeros(4, 3, 2, 2), torch.zeros(4, 3, 2, 2), {"arc": scores()})
    figures = summary(evaluation)
    assert figures["images"] == 4
    assert figures["recognizers"] == evaluation.figures
    assert not any(word in json.dumps(figures) for word in ("embedding", "0.123", "8675309", "row"))
