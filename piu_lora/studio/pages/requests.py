"""Requests: a release, who is pending in it, the next version with its gate, and the log. Nobody is named."""

from pathlib import Path
from typing import Any

import gradio

from piu_lora.errors import BadInput
from piu_lora.studio.elements import render
from piu_lora.studio.pages.base import Area, Studio, Work, person_box, quiet_event
from piu_lora.studio.pages.evidence import DEPTHS
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import Visitor
from piu_lora.studio.work.requests import (
    ReleaseView,
    add_work,
    apply_work,
    begin_work,
    open_work,
    withdraw_work,
)

__all__ = ["RequestsPage"]


class RequestsPage:
    """The fifth tab; a studio that may name no folders has none."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        with gradio.Row():
            with gradio.Column(scale=4, min_width=300):
                folder = gradio.Textbox(
                    label="Folder of a release",
                    placeholder="release",
                    max_lines=1,
                    elem_id="requests-folder",
                    info="Of this machine. Begin makes a new one.",
                )
                with gradio.Row():
                    open_one = gradio.Button("Open", elem_id="requests-open", min_width=110)
                    begin = gradio.Button("Begin", elem_id="requests-begin", min_width=110)
                with gradio.Column(visible=False) as self.forms:
                    person = person_box(
                        "Who asks",
                        elem_id="requests-person",
                        info="Empty: the photographs that were dropped on the page Forget.",
                    )
                    until = gradio.Textbox(
                        label="Until", placeholder="YYYY-MM-DD", max_lines=1, info="Empty: for good."
                    )
                    add = gradio.Button("Add the request", elem_id="requests-add")
                    self.depth = gradio.Radio(DEPTHS, value="full", label="How thorough the checks are")
                    go = gradio.Button("Apply", variant="primary", elem_id="requests-apply")
                    self.request = gradio.Dropdown(
                        [], label="Withdraw a request", elem_id="requests-request", visible=False
                    )
                    self.withdraw = gradio.Button("Withdraw", elem_id="requests-withdraw", visible=False)
            with gradio.Column(scale=7, min_width=300, elem_classes="area"):
                self.area = Area(studio, "requests", _shown, keeps=True, cancelled="The next Apply goes on.")
        for button, handler, inputs in (
            (open_one, self._open, [folder]),
            (begin, self._begin, [folder]),
            (go, self._apply, [self.depth]),
            (self.withdraw, self._withdraw, [self.request]),
        ):
            button.click(self.area.started(handler), inputs, self.area.outputs, **quiet_event())
        add.click(self._adding, [person, until], [person, *self.area.outputs], **quiet_event())

    @property
    def outputs(self) -> list[Any]:
        """What ``update`` brings up to date."""
        return [self.forms, self.request, self.withdraw, *self.area.outputs]

    def update(self, visitor: Visitor, seen: dict[str, Any]) -> list[Any]:
        """What has changed since it was last seen."""
        return [*self._choices(visitor, seen), *self.area.update(visitor, seen)]

    def _choices(self, visitor: Visitor, seen: dict[str, Any]) -> list[Any]:
        view = _view_of(visitor.jobs.get("requests"))
        state = (view is not None, tuple((one.id, one.state) for one in view.open) if view else ())
        if seen.get("requests.open") == state:
            return [gradio.skip()] * 3
        seen["requests.open"] = state
        choices = [(f"{key}, {word}", key) for key, word in state[1]]
        return [
            gradio.update(visible=state[0]),
            gradio.update(choices=choices, value=None, visible=bool(choices)),
            gradio.update(visible=bool(choices)),
        ]

    def _open(self, visitor: Visitor, folder: str) -> tuple[str, Work]:
        return "open the release", open_work(_folder(folder))

    def _begin(self, visitor: Visitor, folder: str) -> tuple[str, Work]:
        return "begin a release", begin_work(self._studio.bench, _folder(folder))

    def _adding(self, request: gradio.Request, person: str, until: str) -> list[Any]:
        """As of the others; whoever was named does not stay on the screen."""
        jobs = self._studio.visitor(request).jobs
        before = jobs.get("requests")
        changes = self.area.started(self._add)(request, person, until)
        return ["" if jobs.get("requests") is not before else gradio.skip(), *changes]

    def _add(self, visitor: Visitor, person: str, until: str) -> tuple[str, Work]:
        release, who = _release(visitor), (person or "").strip()
        photographs = () if who else tuple(visitor.photographs)
        if not who and not photographs:
            raise BadInput("nobody asks yet; write an id of the bank, or drop photographs on the page Forget")
        work = add_work(self._studio.bench, release, who, photographs, (until or "").strip())
        return "add a request", work

    def _apply(self, visitor: Visitor, depth: str) -> tuple[str, Work]:
        work = apply_work(self._studio.bench, visitor, _release(visitor), quick=depth == "quick")
        return "apply the requests", work

    def _withdraw(self, visitor: Visitor, request: str | None) -> tuple[str, Work]:
        if not request:
            raise BadInput("no request is chosen; choose one to withdraw")
        return f"withdraw request {request}", withdraw_work(_release(visitor), request)


def _folder(name: str) -> Path:
    if not (name or "").strip():
        raise BadInput("no folder is named; write that of a release, or a new one and Begin")
    return Path(name.strip()).expanduser().absolute()


def _view_of(job: Job | None) -> ReleaseView | None:
    return job.result if job is not None and isinstance(job.result, ReleaseView) else None


def _release(visitor: Visitor) -> Path:
    view = _view_of(visitor.jobs.get("requests"))
    if view is None:
        raise BadInput("no release is open; open one, or begin one, first")
    return view.folder


def _shown(job: Job | None) -> str:
    return render("requests", one=_view_of(job), again=job.key if job else "")
