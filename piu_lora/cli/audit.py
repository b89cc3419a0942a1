"""``piu-lora audit``."""

from pathlib import Path
from typing import Annotated

import typer

import piu_lora
from piu_lora.cli.groups import Examined, Opening, Reporting, grouped
from piu_lora.cli.options import Dtype, Force, Json, Settings
from piu_lora.cli.output import bars, print_result
from piu_lora.cli.tables import audit_parts
from piu_lora.cli.terminal import judged
from piu_lora.plugins import announced_names

__all__ = ["command"]

_NAMES = announced_names(Path(piu_lora.__file__).parent / "attacks", "attack")
_ATTACKS = f"Attacks to try, with commas between: {', '.join(_NAMES)}. By default all."


@grouped
def command(
    *,
    examined: Examined,
    opening: Opening,
    reporting: Reporting,
    attacks: Annotated[str | None, typer.Option(help=_ATTACKS)] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="How much to try: default, or quick for a trial. Single settings by --set audit.key=value."
        ),
    ] = "default",
    settings: Settings = [],
    dtype: Dtype = "fp32",
    force: Force = False,
    processes: Annotated[
        int,
        typer.Option(
            help="Number of processes that run attacks at once. By default as many as pay: several on the "
            "embedded base where cores are idle.",
            min=0,
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Attack an adapter: can the forgotten person be brought back, and at what price?

    The exit code is 1 when the report misses a policy that was asked for.
    """
    from piu_lora.errors import BadInput
    from piu_lora.evidence import Policy
    from piu_lora.jobs.auditing.audit import audit

    policy = Policy.load(reporting.policy) if reporting.policy else Policy()
    if reporting.policy is not None and not policy.audit:
        raise BadInput(
            f"the policy {str(reporting.policy)!r} has no limits on an audit; "
            'add [audit] and lines such as "cone.radius" = {min = 0.3}'
        )
    names = None if attacks is None else [name.strip() for name in attacks.split(",")]
    reporting.check()
    audited = audit(
        examined.adapter,
        examined.identity,
        out=reporting.out,
        attacks=names,
        budget=budget,
        settings=settings,
        policy=policy,
        public=reporting.public,
        dtype=dtype,
        force=force,
        processes=processes,
        progress=bars,
        **opening.keywords,
    )
    print_result(
        audited.document,
        [*audit_parts(audited.section), *(f"wrote {path}" for path in audited.files)],
        as_json,
    )
    judged(audited.report, reporting.junit, binding=reporting.policy is not None)
