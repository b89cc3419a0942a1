"""Adapters on the Hugging Face Hub."""

from pathlib import Path

__all__ = ["fetch_adapter"]


def fetch_adapter(name: str) -> Path:
    """Download ``user/name[@revision]`` into the Hub's cache."""
    raise NotImplementedError(name)
