"""What several tests of the report need."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from piu_lora.evidence.report import curves, maps, panels


@pytest.fixture(scope="module")
def remembered() -> Iterator[None]:
    """Equal charts of the pages of a file are drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (panels, maps, curves):
            for name in module.__all__:
                if name.endswith(("_chart", "_bar", "_map", "plane")):
                    patch.setattr(module, name, once(getattr(module, name)))
        yield


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    drawn: dict[str, Any] = {}

    def draw(*arguments: Any) -> Any:
        key = repr(arguments)
        if key not in drawn:
            drawn[key] = function(*arguments)
        return drawn[key]

    return draw
