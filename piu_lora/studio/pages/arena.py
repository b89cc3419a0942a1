"""The arena's methods side by side, on the page Evidence: click a point to see its faces."""

from pathlib import Path
from typing import Any

import gradio

from piu_lora.errors import BadInput
from piu_lora.groups import NEAREST, RANDOM
from piu_lora.studio.chart import plane
from piu_lora.studio.elements import render
from piu_lora.studio.pages.base import Area, Studio, Work, quiet_event
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import Visitor
from piu_lora.studio.work.arena import ArenaView, arena_work, faces_work

__all__ = ["ArenaPart"]

_GROUPS = (("random people", RANDOM), ("the nearest people", NEAREST))


class ArenaPart:
    """A folder of ``piu-lora compare``, read and looked into."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        with gradio.Accordion("Methods side by side: an arena", open=False, elem_id="arena-part"):
            with gradio.Row():
                folder = gradio.Textbox(
                    label="Folder of a comparison", placeholder="arena", max_lines=1, elem_id="arena-folder"
                )
                go = gradio.Button("Read it", elem_id="arena-go", min_width=110, scale=0)
            self.area = Area(studio, "arena", _shown, keeps=True)
        go.click(self.area.started(_begin), folder, self.area.outputs, **quiet_event())
        self.area.result.click(self._point, None, self.area.outputs, **quiet_event())

    def _point(self, request: gradio.Request, event: gradio.EventData) -> list[Any]:
        """A click on a contender draws its faces."""

        def begin(visitor: Visitor) -> tuple[str, Work]:
            job = visitor.jobs.get("arena")
            view, variant = job.result if job else None, str(event._data.get("point", ""))
            if not isinstance(view, ArenaView) or variant not in view.variants:
                raise BadInput("that contender is not in the arena that was read; read it again")
            return f"draw what {variant} does", faces_work(self._studio.bench, view, variant)

        return self.area.started(begin)(request)


def _begin(visitor: Visitor, folder: str) -> tuple[str, Work]:
    name = (folder or "").strip()
    if not name:
        raise BadInput("no folder is named; write the one that `piu-lora compare --out` made")
    return "read the arena", arena_work(Path(name))


def _shown(job: Job | None) -> str:
    result = job.result if job else None
    if not isinstance(result, ArenaView):
        return render("arena", one=None)
    planes = [
        (name, [(title, plane(rows, group)) for title, group in _GROUPS])
        for name, rows in result.rows.items()
    ]
    return render("arena", one=result, planes=planes, rows=next(iter(result.rows.values())))
