"""A release goes out: to the Hub, a tag for each version."""

from pathlib import Path

from piu_lora.adapter import Ledger
from piu_lora.errors import BadInput
from piu_lora.hub import tag_commit
from piu_lora.jobs.adapters.publish import Published, push
from piu_lora.jobs.releases.release import Release

__all__ = ["current_version", "push_release", "version_tag"]


def version_tag(number: int) -> str:
    """What the Hub calls a version: ``v3``."""
    return f"v{number}"


def current_version(release: Release) -> Path:
    """The adapter folder that stands.

    Raises:
        BadInput: there is none yet, or nobody is left in it.
    """
    if not release.manifest.current:
        raise BadInput(
            f"the release {str(release.path)!r} has no version that stands; "
            "`piu-lora release apply` makes one once somebody asked"
        )
    return release.version_folder(release.manifest.current)


def push_release(
    release: Release,
    repository: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    ledger: Ledger | None = None,
) -> Published:
    """Push the version that stands, and tag the commit with its number.

    Args:
        repository, public, dry_run, ledger: as for ``push``.

    Raises:
        BadInput: no version stands; something in it names a person.
        EnvironmentProblem: no token, no permission, no network.
    """
    folder = current_version(release)
    bank = release.manifest.bank or None
    published = push(folder, repository, public=public, dry_run=dry_run, bank=bank, ledger=ledger)
    if not dry_run:
        tag_commit(repository, version_tag(release.manifest.current), published.commit)
    return published
