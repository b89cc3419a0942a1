"""How a release stands."""

from collections import Counter
from typing import Any

from piu_lora.jobs.releases.release import Release

__all__ = ["release_status"]


def release_status(release: Release) -> dict[str, Any]:
    """Counts and records, ready for JSON; it names nobody.

    Returns:
        ``current`` version, ``states`` of the requests, ``gates`` taken by their adapters, ``requests``.
    """
    manifest = release.manifest
    members = [release.member(request) for request in manifest.in_state("pending", "active", "leaving")]
    gates = [member.receipt.solution.get("gates", ()) for member in members if member is not None]
    return {
        "current": manifest.current,
        "base": manifest.base,
        "method": release.config.method,
        "keep": manifest.keep,
        "states": dict(Counter(request.state for request in manifest.requests)),
        "gates": sum(map(len, gates)),
        "requests": [request.model_dump(mode="json") for request in manifest.requests],
    }
