"""The photographs of a bank: a folder for each identity, or one flat folder."""

import logging
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from piu_lora.errors import BadInput
from piu_lora.identity import Rejected
from piu_lora.identity.photo_files import listed, odd_name, photo_tree

__all__ = ["folders_of"]

_log = logging.getLogger("piu_lora")


def folders_of(root: Path) -> tuple[dict[str, list[Path]], list[Rejected]]:
    """Photographs by identity, and under the empty name for a flat folder; then whatever else lies there.

    Sub-folders of an identity's folder belong to it. Every real folder is read once, however many links lead
    to it.

    Raises:
        BadInput: no photographs, photographs beside folders of photographs, or a folder whose name cannot be
            an id.
    """
    if not root.is_dir():
        raise BadInput(f"{str(root)!r} is not a folder of photographs")
    top, below = photo_tree(root)
    _check_names(folder.name for folder in below)
    passed_over = [*top.passed_over, *(entry for files in below.values() for entry in files.passed_over)]
    for folder, files in below.items():
        if not files.photos:
            _log.warning("the folder %r holds no photographs", folder.name)
    groups = {folder.name: files.photos for folder, files in below.items() if files.photos}
    if top.photos and groups:
        raise BadInput(
            f"{str(root)!r} holds photographs ({top.photos[0].name}) "
            f"beside folders of photographs ({next(iter(groups))}); "
            "give every identity a folder, or put all photographs into one"
        )
    if not top.photos and not groups:
        others = f"; passed over: {listed(passed_over)}" if passed_over else ""
        raise BadInput(f"{str(root)!r} holds no photographs, neither in it nor in its folders{others}")
    return {"": top.photos} if top.photos else groups, passed_over


def _check_names(names: Iterable[str]) -> None:
    """Before anything is read: a folder's name becomes an identity's id."""
    spelled: dict[str, str] = {}
    for name in names:
        if reason := odd_name(name):
            raise BadInput(f"the folder {name!r} has a name that {reason}, and it would be an id; rename it")
        other = spelled.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise BadInput(
                f"the folders {other!a} and {name!a} have names that look alike; "
                "rename one, or put its photographs into the other"
            )
