"""``piu-lora release``: one adapter for everybody who asked, version after version."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from piu_lora.cli.options import (
    AdapterFolder,
    Bank,
    Base,
    Device,
    Dtype,
    Force,
    Identities,
    Json,
    LedgerFile,
    Pack,
    PolicyFile,
    PublicRepository,
    Settings,
    Shard,
)
from piu_lora.cli.output import Part, Table, bars, print_result
from piu_lora.cli.terminal import opened_ledger

if TYPE_CHECKING:
    from piu_lora.jobs.releases.manifest import CheckRecord, VersionRecord

__all__ = ["app"]

app = typer.Typer(
    name="release",
    help="Answer requests over the years: one adapter for everybody, version after version.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(metavar="RELEASE", help="The folder of the release.")]


@app.command("init")
def init(
    out: Annotated[Path, typer.Option(help="The folder to create.")],
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    method: Annotated[
        str, typer.Option(help="How everybody is forgotten. gate-encoder makes adapters that add up.")
    ] = "gate-encoder",
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    settings: Settings = [],
    keep: Annotated[
        Literal["embeddings", "nothing"],
        typer.Option(
            help="What stays of a person whom an accepted version forgets: embeddings, so that later "
            "versions are measured on them, or nothing."
        ),
    ] = "embeddings",
    as_json: Json = False,
) -> None:
    """Begin a release."""
    from piu_lora.config import ForgetConfig
    from piu_lora.jobs.releases.release import create_release
    from piu_lora.model import family_of

    chosen = ForgetConfig.preset(family_of(base), method)
    if config is not None:
        chosen = chosen.updated_from_toml(config)
    chosen = chosen.updated_from_pairs(settings)
    release = create_release(out, base, bank=bank, pack=pack, config=chosen, keep=keep)
    text = f"release {out} for the base {base} ({chosen.method}); add people with `piu-lora release add`"
    print_result({"path": str(release.path), "base": base, "method": chosen.method}, text, as_json)


@app.command("add")
def add(
    folder: Folder,
    identity: Identities,
    until: Annotated[str, typer.Option(help="The day on which the requests lapse, YYYY-MM-DD.")] = "",
    ledger: LedgerFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Add requests; the next version forgets these people."""
    from piu_lora.jobs.releases.release import open_release
    from piu_lora.jobs.releases.requests import add_requests

    with opened_ledger(ledger) as entries:
        requests = add_requests(open_release(folder), identity, until=until, ledger=entries, device=device)
    lines = [f"request {request.id} is pending" for request in requests]
    lines.append(f"`piu-lora release apply {folder}` makes the next version")
    print_result({"requests": [request.to_dict() for request in requests]}, lines, as_json)


@app.command("withdraw")
def withdraw(
    folder: Folder,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id, or its beginning.")],
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """Take a request back: a pending one at once, an active one with the next version."""
    from piu_lora.jobs.releases.release import open_release
    from piu_lora.jobs.releases.requests import withdraw_request

    with opened_ledger(ledger) as entries:
        ended = withdraw_request(open_release(folder), request, ledger=entries)
    leaves = f"leaves with the next `piu-lora release apply {folder}`"
    outcome = "is withdrawn" if ended.state == "withdrawn" else leaves
    print_result({"request": ended.to_dict()}, f"request {ended.id} {outcome}", as_json)


@app.command("apply")
def apply(
    folder: Folder,
    policy: PolicyFile = None,
    worse: Annotated[
        float,
        typer.Option(min=0, max=1, help="How far others' likeness may fall from one version to the next."),
    ] = 0.02,
    settings: Settings = [],
    anew: Annotated[
        bool, typer.Option("--anew", help="Solve once more for those who are pending since a failed version.")
    ] = False,
    ledger: LedgerFile = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make the next version, measure it, and let it stand if its checks pass.

    The exit code is 1 when it does not stand.
    """
    from piu_lora.evidence import Policy
    from piu_lora.jobs.releases.acceptance import DEFAULT_POLICY
    from piu_lora.jobs.releases.apply import apply_requests
    from piu_lora.jobs.releases.release import open_release

    limits = DEFAULT_POLICY if policy is None else Policy.load(policy)
    release = open_release(folder)
    with opened_ledger(ledger) as entries:
        applied = apply_requests(
            release,
            policy=limits,
            worse=worse,
            settings=settings,
            anew=anew,
            ledger=entries,
            device=device,
            progress=bars,
        )
    version = applied.version
    facts = {
        "version": version and version.to_dict(),
        "lapsed": [request.id for request in applied.lapsed],
        "current": release.manifest.current,
    }
    lapsed = [f"request {request.id} has lapsed" for request in applied.lapsed]
    if version is None:
        print_result(facts, [*lapsed, "nothing to do: nobody is pending, and nobody leaves"], as_json)
        return
    print_result(facts, [*lapsed, *_version_parts(version, folder)], as_json)
    if version.state == "failed":
        raise typer.Exit(1)


def _version_parts(version: "VersionRecord", folder: Path) -> list[Part]:
    from piu_lora.adapter.receipt import people_text

    people = len(version.requests)
    if version.state == "accepted":
        where = f"in {folder / 'current'}" if people else "so nobody is forgotten any more"
        head = f"version {version.number} stands, for {people_text(people)}, {where}"
    else:
        head = (
            f"version {version.number} does not stand; it is kept in {folder / 'failed'}, "
            "and the version before stays current"
        )
    unmeasured = people - version.measured
    notes = [f"{unmeasured} of them were not measured: it is not known who they are"] if unmeasured else []
    return [head, *notes, "", _check_table(version.checks)] if version.checks else [head]


def _check_table(checks: Sequence["CheckRecord"]) -> Table:
    rows = [
        (
            "passed" if check.passed else "FAILED",
            check.text,
            "-" if check.value is None else f"{check.value:.4g}",
            f"{check.relation} {check.limit:.4g}",
            "-" if check.before is None else f"{check.before:.4g}",
        )
        for check in checks
    ]
    return Table(("", "check", "this version", "asked", "before"), rows)


@app.command("status")
def status(folder: Folder, as_json: Json = False) -> None:
    """List the requests, the version that stands, and how many neurons are taken."""
    from piu_lora.jobs.releases.release import open_release
    from piu_lora.jobs.releases.status import release_status

    facts = release_status(open_release(folder))
    states = facts["states"]
    lines: list[Part] = [
        f"version {facts['current']} stands" if facts["current"] else "no version stands",
        ", ".join(f"{count} {state}" for state, count in states.items()) or "no requests",
    ]
    if facts["gates"]:
        lines.append(f"{facts['gates']} gate neurons are taken")
    if facts["requests"]:
        lines += ["", _request_table(facts["requests"])]
    print_result(facts, lines, as_json)


def _request_table(requests: Sequence[dict[str, Any]]) -> Table:
    rows = [
        (
            entry["id"],
            entry["state"],
            entry["added"][:10],
            entry.get("until") or "-",
            entry.get("adapter_id") or "-",
        )
        for entry in requests
    ]
    return Table(("request", "state", "added", "until", "adapter"), rows)


@app.command("log")
def log(folder: Folder, as_json: Json = False) -> None:
    """List the versions, and what failed."""
    from piu_lora.jobs.releases.release import open_release

    manifest = open_release(folder).manifest
    rows = [
        (
            str(version.number) + (" *" if version.number == manifest.current else ""),
            version.state,
            version.made[:16].replace("T", " "),
            str(len(version.requests)),
            str(version.measured),
            "; ".join(check.name for check in version.missed) or "-",
        )
        for version in manifest.versions
    ]
    table = Table(("version", "state", "made", "people", "measured", "missed"), rows)
    facts = {"current": manifest.current, "versions": [version.to_dict() for version in manifest.versions]}
    print_result(facts, table if rows else "no versions yet", as_json)


@app.command("push")
def push(
    folder: Folder,
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Where to on the Hub.")],
    public: PublicRepository = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent.")] = False,
    ledger: LedgerFile = None,
    as_json: Json = False,
) -> None:
    """Push the version that stands to the Hub, tagged with its number."""
    from piu_lora.jobs.releases.publish import push_release, version_tag
    from piu_lora.jobs.releases.release import open_release

    release = open_release(folder)
    with opened_ledger(ledger) as entries:
        published = push_release(release, repository, public=public, dry_run=dry_run, ledger=entries)
    tag = version_tag(release.manifest.current)
    facts = {"tag": tag, "people": published.people, "files": published.files, "url": published.url}
    outcome = f"would push {len(published.files)} files as {tag}" if dry_run else f"{published.url} is {tag}"
    print_result(facts, outcome, as_json)


@app.command("fuse")
def fuse(
    folder: Folder,
    out: AdapterFolder,
    dtype: Dtype = "fp32",
    shard: Shard = "2GB",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Bake the version that stands into the weights of its base."""
    from piu_lora.jobs.releases.publish import current_version
    from piu_lora.jobs.releases.release import open_release
    from piu_lora.jobs.stacks.fuse import fuse_adapters
    from piu_lora.jobs.stacks.members import open_members

    release = open_release(folder)
    members = open_members([current_version(release)])
    receipt = fuse_adapters(members, release.manifest.base, out, dtype=dtype, shard=shard, force=force)
    text = f"version {release.manifest.current} fused into {out} ({dtype})"
    print_result({"path": str(out), **receipt}, text, as_json)
