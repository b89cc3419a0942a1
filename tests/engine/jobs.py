"""Jobs that other processes import."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from piu_lora.errors import BadInput


@dataclass(frozen=True)
class Squares:
    """Squares numbers, and says who did; a fatal number kills its first worker, or every one."""

    folder: Path
    fatal: int = -1
    always: bool = False

    def open(self) -> Callable[[int], tuple[int, int]]:
        (self.folder / f"opened-{os.getpid()}").touch()
        return self.square

    def square(self, number: int) -> tuple[int, int]:
        if number == self.fatal and (self.always or not (self.folder / "killed").exists()):
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number < 0:
            raise BadInput(f"number = {number} is negative")
        return number**2, os.getpid()
