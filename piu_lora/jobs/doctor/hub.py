"""The Hub's cache and token, imported late: the doctor must also work where huggingface_hub does not."""

from pathlib import Path

__all__ = ["cache_folder", "cached_file", "token_present"]


def cached_file(repository: str, file: str, revision: str) -> Path | None:
    """A file of the Hub cache at that revision, if it is there."""
    from piu_lora import hub

    return hub.cached_file(repository, file, revision)


def token_present() -> bool:
    """Whether there is a token; the token itself goes no further."""
    from piu_lora import hub

    return hub.token_present()


def cache_folder() -> Path:
    """Where the Hub cache is."""
    from piu_lora import hub

    return hub.cache_folder()
