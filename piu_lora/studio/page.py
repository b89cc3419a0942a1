"""The studio's one page: its head, its tabs, and the clock that brings them up to date."""

from typing import Any

import gradio

from piu_lora.studio.pages.base import Studio, quiet_event
from piu_lora.studio.pages.evidence import EvidencePage
from piu_lora.studio.pages.explore import ExplorePage
from piu_lora.studio.pages.forget import ForgetPage
from piu_lora.studio.pages.requests import RequestsPage
from piu_lora.studio.pages.stack import StackPage

__all__ = ["build_page"]

_HEAD = """<header class="studio-head"><h1>piu-lora studio</h1>
<p>Make a face generator forget somebody, and see what it does to them and to everybody else.</p></header>"""


_TABS: tuple[tuple[str, Any], ...] = (
    ("Forget", ForgetPage),
    ("Explore", ExplorePage),
    ("Stack", StackPage),
    ("Evidence", EvidencePage),
    ("Requests", RequestsPage),
)


def build_page(studio: Studio) -> gradio.Blocks:
    """All tabs; nothing is loaded or computed before somebody asks."""
    with gradio.Blocks(title="piu-lora studio", analytics_enabled=False) as blocks:
        gradio.HTML(_HEAD, apply_default_css=False)
        pages: list[Any] = []
        with gradio.Tabs():
            for name, kind in _TABS:
                if kind is RequestsPage and not studio.files:
                    continue  # a release lies in a folder of the machine
                with gradio.Tab(name, id=name.lower()):
                    pages.append(kind(studio))
        seen = gradio.State({})
        clock = gradio.Timer(1.0)

        def look(request: gradio.Request, known: dict[str, Any]) -> list[Any]:
            visitor, known = studio.visitor(request), dict(known)
            changes = [change for page in pages for change in page.update(visitor, known)]
            return [known, *changes]

        outputs = [seen, *(output for page in pages for output in page.outputs)]
        blocks.load(look, seen, outputs, **quiet_event())
        clock.tick(look, seen, outputs, **quiet_event())
    return blocks
