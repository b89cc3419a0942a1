"""The base that a studio works on: opened once, in the queue, and used by its jobs alone."""

import functools
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piu_lora.errors import BadInput
from piu_lora.progress import Progress
from piu_lora.studio.methods import MethodTimes

if TYPE_CHECKING:
    import torch

    from piu_lora.identity import IdentityBank
    from piu_lora.jobs.request.session import Session

__all__ = ["BaseChoice", "Bench"]

_FACES = 4096  # portraits that stay in memory
_MAPPED = 3000  # people up to whom the layout of a map looks at all pairs


@dataclass(frozen=True)
class BaseChoice:
    """What a studio is opened on; as for ``forget``."""

    base: str = "mini"
    bank: str | None = None
    pack: Path | None = None
    device: str = "auto"


class Bench:
    """Base, bank and recognizers, as soon as they are open."""

    def __init__(self, choice: BaseChoice) -> None:
        self.choice = choice
        self.ready = threading.Event()
        self.failure = ""
        self.people: list[str] = []
        self.times = MethodTimes(choice.base)
        self._session: Session | None = None
        self._drawn: dict[int, bytes] = {}
        self._places: list[tuple[float, float]] = []
        self._portrait = functools.lru_cache(maxsize=_FACES)(self._rendered)

    def open(self) -> "Session":
        """Base, bank and recognizers, opened at the first call.

        Raises:
            PiuLoraError: as for ``forget``.
        """
        if self._session is None:
            # Everything that pages ask for is imported before they may ask: two threads that import
            # diffusers at once get in each other's way.
            import piu_lora.adapter
            import piu_lora.unlearn  # noqa: F401
            from piu_lora.config import ForgetConfig
            from piu_lora.jobs.request.session import open_session
            from piu_lora.model import family_of

            chosen = self.choice
            faces = ForgetConfig.preset(family_of(chosen.base)).faces
            session = open_session(chosen.base, chosen.bank, chosen.pack, faces=faces, device=chosen.device)
            self.people = list(session.bank.ids)
            self._session = session
            self.ready.set()
            _ = session.pipe  # what takes longest, behind what a page needs first
        return self._session

    def session(self, progress: Progress) -> "Session":
        """The same, telling a job how far it is."""
        from dataclasses import replace

        opened = self.open()
        return replace(opened, base=opened.pipe, progress=progress)

    @property
    def bank(self) -> "IdentityBank":
        """The bank of the open base.

        Raises:
            BadInput: it is not open yet.
        """
        self.require_open()
        assert self._session is not None
        return self._session.bank

    def require_open(self) -> None:
        """Raise ``BadInput`` while the base is not open yet."""
        if not self.ready.is_set():
            raise BadInput("the base is still being opened; try again in a moment")

    @property
    def methods(self) -> dict[str, Any]:
        """The known methods by name."""
        from piu_lora.unlearn import METHODS

        return dict(METHODS)

    def row_of(self, person: str) -> int | None:
        """The bank's row of a person, None for somebody who is not in it."""
        bank = self.bank
        return bank.index(person) if person in bank else None

    def face(self, row: int) -> bytes | None:
        """A portrait of somebody of the bank as WebP: a photograph where the base brings some, else a picture
        that was drawn of them; None where there is neither.
        """
        if row in self._drawn:
            return self._drawn[row]
        return self._portrait(row)

    def map_places(self) -> list[tuple[float, float]]:
        """Where everybody of the bank stands on a map, x and y from 0 to 1; like people are near each other.
        Computed once: t-SNE, van der Maaten and Hinton 2008; for large banks the two main directions.
        """
        if not self._places:
            self._places = _laid_out(self.bank.centroids)
        return self._places

    def remember(self, row: int, picture: bytes) -> None:
        """Keep a picture of somebody, for a base that brings no photographs; in memory only."""
        if self._portrait(row) is None and len(self._drawn) < _FACES:
            self._drawn[row] = picture

    def _rendered(self, row: int) -> bytes | None:
        from piu_lora.model import companions_of
        from piu_lora.studio.faces import webp

        companions = companions_of(self.bank)
        if companions is None or companions.photographs is None:
            return None
        return webp(companions.photographs(row, 1)[0])


def _laid_out(centroids: "torch.Tensor") -> list[tuple[float, float]]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = 5 < len(centroids) <= _MAPPED
    layout = TSNE(2, init="pca", random_state=0, perplexity=min(30, len(centroids) // 3)) if few else PCA(2)
    places = layout.fit_transform(centroids.numpy())
    low, high = places.min(axis=0), places.max(axis=0)
    return [tuple(point) for point in ((places - low) / (high - low)).tolist()]
