"""``piu-lora audit``."""

from typing import Annotated

import typer

from piu_lora.cli.options import (
    AdapterArgument,
    Bank,
    Base,
    Device,
    Dtype,
    Force,
    Identities,
    Json,
    Junit,
    Pack,
    PolicyFile,
    Public,
    ReportFolder,
    Settings,
)
from piu_lora.cli.output import bars, print_result
from piu_lora.cli.tables import audit_parts
from piu_lora.cli.terminal import check_junit, judged

__all__ = ["command"]


def command(
    adapter: AdapterArgument,
    identity: Identities,
    out: ReportFolder = None,
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    attacks: Annotated[
        str | None,
        typer.Option(
            help="Attacks to try, with commas between: cone, inversion, bypass, relearn, reidentify. "
            "By default all."
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="How much to try: default, or quick for a trial. Single settings by --set audit.key=value."
        ),
    ] = "default",
    settings: Settings = [],
    policy: PolicyFile = None,
    junit: Junit = None,
    public: Public = False,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Attack an adapter: can the forgotten person be brought back, and at what price?

    The exit code is 1 when the report misses a policy that was asked for.
    """
    from piu_lora.errors import BadInput
    from piu_lora.evidence import Policy
    from piu_lora.jobs.auditing.audit import audit

    chosen = Policy.load(policy) if policy else Policy()
    if policy is not None and not chosen.audit:
        raise BadInput(
            f"the policy {str(policy)!r} has no limits on an audit; "
            'add [audit] and lines such as "cone.radius" = {min = 0.3}'
        )
    names = None if attacks is None else [name.strip() for name in attacks.split(",")]
    check_junit(junit)
    audited = audit(
        adapter,
        identity,
        base,
        out,
        bank=bank,
        pack=pack,
        attacks=names,
        budget=budget,
        settings=settings,
        policy=chosen,
        public=public,
        device=device,
        dtype=dtype,
        force=force,
        progress=bars,
    )
    print_result(
        audited.document,
        [*audit_parts(audited.section), *(f"wrote {path}" for path in audited.files)],
        as_json,
    )
    judged(audited.report, junit, binding=policy is not None)
