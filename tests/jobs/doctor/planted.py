"""Facts for the doctor to find."""

from collections.abc import Iterable
from pathlib import Path

from piu_lora.jobs.doctor.finding import Finding

TOKEN = "hf_PlantedTokenThatNobodyMaySee"


def by_name(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def plant(cache: Path, repository: tuple[str, str], file: str, content: bytes = b"12345") -> None:
    """A file in a Hub cache, as the Hub client lays it out."""
    path = cache / f"models--{repository[0].replace('/', '--')}" / "snapshots" / repository[1] / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
