"""``piu-lora evaluate``."""

from typing import Any

from piu_lora import interrupts
from piu_lora.cli.groups import Examined, Opening, Reporting, grouped
from piu_lora.cli.options import (
    Dtype,
    Force,
    Json,
    MaxAccU,
    MaxForget,
    MinRetain,
    QualityModel,
    References,
    SecondBank,
    SecondPack,
    Settings,
    ShowImages,
    Unseen,
)
from piu_lora.cli.output import bars, print_result
from piu_lora.cli.tables import evaluation_parts, expected_parts
from piu_lora.cli.terminal import judged

__all__ = ["command"]


@grouped
def command(
    *,
    examined: Examined,
    opening: Opening,
    reporting: Reporting,
    second: SecondPack = None,
    second_bank: SecondBank = None,
    references: References = None,
    unseen: Unseen = None,
    quality: QualityModel = None,
    settings: Settings = [],
    max_forget: MaxForget = None,
    max_acc_u: MaxAccU = None,
    min_retain: MinRetain = None,
    images: ShowImages = False,
    dtype: Dtype = "fp32",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure what an adapter does, with the split and seeds of its receipt.

    The exit code is 1 when the report misses a policy that was asked for.
    """
    from piu_lora.evidence import Policy
    from piu_lora.jobs.evaluation.evaluate import Judges, evaluate

    limits = _limits(max_forget, max_acc_u, min_retain)
    policy = Policy.only("command line", **limits) if limits else Policy()
    if reporting.policy is not None:
        policy = Policy.load(reporting.policy)
    reporting.check()
    try:
        assessment = evaluate(
            examined.adapter,
            examined.identity,
            out=reporting.out,
            judges=Judges(second, second_bank, references, quality, unseen),
            settings=settings,
            policy=policy.tightened(**limits),
            images=images,
            public=reporting.public,
            dtype=dtype,
            force=force,
            progress=bars,
            **opening.keywords,
        )
    except KeyboardInterrupt:
        go_on = "repeat the command to go on"
        interrupts.advise(go_on if reporting.out else "with --out, it would go on")
        raise
    print_result(
        assessment.document,
        [
            *evaluation_parts(assessment.figures),
            *expected_parts(assessment.report.evaluation),
            *(f"wrote {path}" for path in assessment.files),
        ],
        as_json,
    )
    judged(assessment.report, reporting.junit, binding=reporting.policy is not None or bool(limits))


def _limits(max_forget: float | None, max_acc_u: float | None, min_retain: float | None) -> dict[str, Any]:
    limits = {
        "forget_ism": max_forget,
        "recognised": max_acc_u,
        "random_ism": min_retain,
        "nearest_ism": min_retain,
    }
    return {name: limit for name, limit in limits.items() if limit is not None}
