"""What the Hub's client keeps on this machine: downloaded files, and the token."""

from pathlib import Path

from huggingface_hub import constants, get_token, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name

__all__ = ["absent_by_cache", "cached_commit", "cached_file", "forget_file", "token_present"]


def cached_file(
    repository: str, name: str, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path | None:
    """The path of a file in the Hub's cache; None where it is not there. Asks no network."""
    try:
        path = try_to_load_from_cache(repository, name, cache_dir=cache_dir, revision=revision)
    except HFValidationError:
        return None
    return Path(path) if isinstance(path, str) and Path(path).exists() else None


def absent_by_cache(repository: str, name: str, revision: str | None, cache_dir: str | Path | None) -> bool:
    """Whether the cache remembers that the repository holds no such file."""
    answer = try_to_load_from_cache(repository, name, cache_dir=cache_dir, revision=revision)
    return answer is not None and not isinstance(answer, str)


def cached_commit(repository: str, revision: str, cache_dir: str | Path | None = None) -> str:
    """The commit that a branch or tag stood for when it was last asked for; empty where it never was."""
    folder = Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(
        repo_id=repository, repo_type="model"
    )
    try:
        return (folder / "refs" / revision).read_text().strip()
    except (OSError, ValueError):
        return ""


def forget_file(path: Path) -> None:
    """Delete a file from the cache, so that it is downloaded again."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def token_present() -> bool:
    """Whether a Hub token is set or stored; its value stays where it is."""
    return bool(get_token())
