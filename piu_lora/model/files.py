"""Where the files of a base come from: a folder, or a repository on the Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from piu_lora.errors import BadInput

__all__ = ["Files", "LocalFiles"]


class Files(Protocol):
    """A source of files; ``piu_lora.hub.HubFiles`` is the other one."""

    @property
    def name(self) -> str:
        """The source, for messages."""

    def find(self, name: str) -> Path | None:
        """The local path of a file; None when the source holds no such file."""

    def get(self, name: str, *others: str) -> Path:
        """The local path of a file that must be there, in one of its forms."""

    def repair(self, name: str) -> str:
        """What to do about a damaged file."""


@dataclass(frozen=True)
class LocalFiles:
    """Files of a folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    def find(self, name: str) -> Path | None:
        """The file, if it is there."""
        path = self.folder / name
        return path if path.is_file() else None

    def get(self, name: str, *others: str) -> Path:
        """The first of these files that is there.

        Raises:
            BadInput: none is.
        """
        for path in map(self.find, (name, *others)):
            if path is not None:
                return path
        raise BadInput(
            f"the base {self.name!r} lacks {' or '.join([name, *others])}; "
            "copy it there, or pass arc2face, mini or a Hub id"
        )

    def repair(self, name: str) -> str:
        """A folder has no other source."""
        return f"copy {name} there again"
