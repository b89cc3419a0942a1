"""A release opened, requests added and withdrawn, the next version made; what is shown names nobody."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.studio.bench import Bench
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import Visitor
from piu_lora.studio.work.evidence import QUICK

if TYPE_CHECKING:
    from piu_lora.jobs.releases.manifest import CheckRecord, RequestRecord, VersionRecord
    from piu_lora.jobs.releases.release import Release

__all__ = ["ReleaseView", "add_work", "apply_work", "begin_work", "open_work", "withdraw_work"]


@dataclass(frozen=True)
class ReleaseView:
    """A release as it stands.

    Attributes:
        made: the version that was just made; None where none was.
        words: what was just done.
        report: key of that version's report; empty where there is none.
    """

    folder: Path
    method: str
    current: int
    gates: int
    requests: "tuple[RequestRecord, ...]"
    versions: "tuple[VersionRecord, ...]"
    words: str = ""
    made: "VersionRecord | None" = None
    report: str = ""

    @property
    def open(self) -> "list[RequestRecord]":
        """The requests that can be withdrawn."""
        return [request for request in self.requests if request.state in ("pending", "active")]

    @property
    def counts(self) -> str:
        """How many requests are in each state, in words."""
        states = ("pending", "active", "leaving", "withdrawn")
        counts = {state: sum(request.state == state for request in self.requests) for state in states}
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no requests"

    @property
    def missed(self) -> "list[CheckRecord]":
        """The checks of the new version that did not pass."""
        return [check for check in self.made.checks if not check.passed] if self.made else []

    @property
    def met(self) -> "list[CheckRecord]":
        """Those that did."""
        return [check for check in self.made.checks if check.passed] if self.made else []


def open_work(folder: Path) -> Callable[[Job], None]:
    """Read a release."""

    def work(job: Job) -> None:
        from piu_lora.jobs.releases.release import open_release

        with job.progress("read the release", 0):
            job.show(_view(open_release(folder)))

    return work


def begin_work(bench: Bench, folder: Path) -> Callable[[Job], None]:
    """Begin a release on the studio's base and bank."""

    def work(job: Job) -> None:
        from piu_lora.jobs.releases.release import create_release

        with job.progress("begin the release", 0):
            chosen = bench.choice
            release = create_release(folder, chosen.base, bank=chosen.bank, pack=chosen.pack)
            job.show(_view(release, "a release has begun; add who asks to be forgotten"))

    return work


def add_work(
    bench: Bench, folder: Path, person: str, photographs: Sequence[Path], until: str
) -> Callable[[Job], None]:
    """Add a request: of somebody of the bank, else of whoever is on the photographs."""

    def work(job: Job) -> None:
        from piu_lora.jobs.releases.release import open_release
        from piu_lora.jobs.releases.requests import add_requests

        with job.progress("read who is meant", 0):
            release = open_release(folder)
            who = [person] if person else [_one_person(photographs)]
            (request,) = add_requests(release, who, until=until, device=bench.choice.device)
            job.show(_view(release, f"request {request.id} is pending; Apply makes the next version"))

    return work


def _one_person(photographs: Sequence[Path]) -> Path:
    return photographs[0].parent if len(photographs) > 1 else photographs[0]


def withdraw_work(folder: Path, request_id: str) -> Callable[[Job], None]:
    """Take a request back."""

    def work(job: Job) -> None:
        from piu_lora.jobs.releases.release import open_release
        from piu_lora.jobs.releases.requests import withdraw_request

        with job.progress("withdraw", 0):
            release = open_release(folder)
            ended = withdraw_request(release, request_id)
            gone = "is withdrawn" if ended.state == "withdrawn" else "leaves with the next version"
            job.show(_view(release, f"request {ended.id} {gone}"))

    return work


def apply_work(bench: Bench, visitor: Visitor, folder: Path, *, quick: bool) -> Callable[[Job], None]:
    """Make the next version, and let it stand if its checks pass."""

    def work(job: Job) -> None:
        from piu_lora.jobs.releases.apply import apply_requests
        from piu_lora.jobs.releases.release import open_release

        release = open_release(folder)
        with job.progress("make the next version", 0):
            applied = apply_requests(
                release, settings=QUICK if quick else (), device=bench.choice.device, progress=job.progress
            )
        lapsed = "".join(f"; request {request.id} has lapsed" for request in applied.lapsed)
        version, report = applied.version, ""
        if version is None:
            words = "nothing to do: nobody is pending, and nobody leaves"
        elif version.state == "accepted":
            words = f"version {version.number} stands"
        else:
            words = f"version {version.number} does not stand; the one before stays current"
        if version is not None:
            page = release.report_folder(version.number) / "report.html"
            if page.is_file():
                report = f"release-{version.number}-{version.adapter_id[:8]}"
                visitor.reports[report] = (f"version {version.number} of the release", page)
        job.show(_view(release, words + lapsed, version, report))

    return work


def _view(
    release: "Release", words: str = "", made: "VersionRecord | None" = None, report: str = ""
) -> ReleaseView:
    from piu_lora.jobs.releases.status import release_status

    facts, manifest = release_status(release), release.manifest
    return ReleaseView(
        release.path,
        facts["method"],
        manifest.current,
        facts["gates"],
        manifest.requests,
        manifest.versions,
        words,
        made,
        report,
    )
