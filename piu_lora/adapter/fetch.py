"""Where an adapter is: in a folder, or on the Hub, from where it comes with its digests checked."""

import hashlib
import re
from pathlib import Path

from piu_lora.adapter.folder import RECEIPT_FILE, file_digest
from piu_lora.adapter.receipt import Receipt
from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.foreign import read_content
from piu_lora.hub import HubFiles, forget_file

__all__ = ["adapter_folder", "fetch_adapter"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_NAME = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*(@[\w./-]+)?")


def adapter_folder(adapter: Path | str) -> Path:
    """The folder of an adapter; one on the Hub, ``user/name[@revision]``, is downloaded into the Hub's cache.

    A folder of that name goes first.
    """
    if Path(adapter).exists() or isinstance(adapter, Path) or not _HUB_ID.fullmatch(adapter):
        return Path(adapter)
    return fetch_adapter(adapter)


def fetch_adapter(name: str) -> Path:
    """Download the adapter ``user/name[@revision]`` into the Hub's cache; what is there already is not
    downloaded again.

    Returns:
        A folder with all files that the receipt lists, apart from reports that were not published.

    Raises:
        BadInput: no name of a repository, or it holds no adapter.
        EnvironmentProblem: it cannot be had, or a file arrived damaged; a damaged file is not kept.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{name!r} is no name of an adapter on the Hub; write it as USER/NAME or USER/NAME@REVISION"
        )
    repository, _, revision = name.partition("@")
    receipt_path = HubFiles(repository, revision or None).find(RECEIPT_FILE)
    if receipt_path is None:
        raise BadInput(
            f"the repository {name!r} holds no adapter: it has no {RECEIPT_FILE}; "
            "pass one that `piu-lora push` made"
        )
    folder = receipt_path.parent
    # All other files from the very same commit, though the branch may move meanwhile.
    files = HubFiles(repository, folder.name)
    for file, digest in _receipt(receipt_path, name).files.items():
        path = files.find(file)
        if path is not None and file_digest(path) != digest:
            # Either of the two may be the damaged one.
            forget_file(path)
            forget_file(receipt_path)
            raise EnvironmentProblem(
                f"{file} of {name!r} is not what its receipt says and was deleted; "
                f"{files.repair(file)}, or pull again"
            )
    return folder


def _receipt(path: Path, name: str) -> Receipt:
    """The receipt. Nothing in it tells that it arrived damaged, so the name of its blob, a SHA-1, must."""
    content, announced = read_content(path), path.resolve().name
    if re.fullmatch("[0-9a-f]{40}", announced) and announced not in (
        _git_id(content),
        hashlib.sha1(content).hexdigest(),
    ):
        forget_file(path)
        raise EnvironmentProblem(f"{RECEIPT_FILE} of {name!r} arrived damaged and was deleted; pull again")
    try:
        return Receipt.from_json(content.decode(), f"{RECEIPT_FILE} of {name!r}")
    except UnicodeDecodeError as error:
        raise BadInput(f"{RECEIPT_FILE} of {name!r} is no text: the repository holds no adapter") from error


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
