"""What every page has: a job with its progress and result, and how both are brought up to date."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio

from piu_lora.errors import BadInput, PiuLoraError
from piu_lora.studio.bench import Bench
from piu_lora.studio.elements import curve, render
from piu_lora.studio.queue import Job, WorkQueue
from piu_lora.studio.visitors import Visitor, Visitors

__all__ = ["COOKIE", "Area", "Studio", "Work", "person_box", "quiet_event"]

COOKIE = "piu_lora_studio"
Work = Callable[[Job], None]
_FOLDER = "the private folder"  # said instead of where it lies


def person_box(label: str, **options: Any) -> gradio.Textbox:
    """Where somebody of the bank is named; the options are those of a ``Textbox``."""
    return gradio.Textbox(label=label, placeholder="an id of the bank", max_lines=1, **options)


@dataclass(frozen=True)
class Studio:
    """What the pages share."""

    bench: Bench
    queue: WorkQueue
    visitors: Visitors
    files: bool = True  # whether folders of this machine may be named

    def visitor(self, request: gradio.Request) -> Visitor:
        """Who asks."""
        return self.visitors.get(request.cookies.get(COOKIE, ""))

    def start(self, visitor: Visitor, page: str, title: str, work: Work, result: Any = None) -> None:
        """Put a page's job into the queue.

        Args:
            result: what there is to see until the job shows something.

        Raises:
            BadInput: the page's last one still runs.
        """
        last = visitor.jobs.get(page)
        if last is not None and last.active:
            raise BadInput("this page is busy with its last job; cancel it first")
        visitor.jobs[page] = self.queue.add(Job(title, work, result=result))


class Area:
    """A page's progress and result, as components.

    Args:
        name: of the page.
        shown: from a job (None before the first one) to the HTML of its result.
        keeps: whether the result of the job before stays until there is another.
        cancelled: what a cancelled job leaves.
        coming: said in the place of the result while a job has nothing to show yet.
    """

    def __init__(
        self,
        studio: Studio,
        name: str,
        shown: Callable[[Job | None], str],
        *,
        keeps: bool = False,
        cancelled: str = "Nothing was left behind.",
        coming: str = "The result comes here.",
    ) -> None:
        self._studio, self.name, self._shown = studio, name, shown
        self._keeps, self._cancelled, self._coming = keeps, cancelled, coming
        self.progress = gradio.HTML("", elem_id=f"{name}-progress", apply_default_css=False)
        self.cancel = gradio.Button("Cancel", visible=False, elem_id=f"{name}-cancel", size="sm")
        self.result = gradio.HTML(
            shown(None), elem_id=f"{name}-result", apply_default_css=False, js_on_load=_CLICKS
        )
        self.cancel.click(self._cancel, outputs=self.outputs, **quiet_event())

    @property
    def outputs(self) -> list[Any]:
        """In the order of ``update``."""
        return [self.progress, self.cancel, self.result]

    def update(self, visitor: Visitor, seen: dict[str, Any]) -> list[Any]:
        """What has changed since it was last seen; ``seen`` is brought up to date."""
        job = visitor.jobs.get(self.name)
        version = (job.key, job.version, job.state, _clock(job)) if job else ()
        shown = _showing(job)
        changes: list[Any] = [gradio.skip(), gradio.skip(), gradio.skip()]
        if seen.get(f"{self.name}.progress") != version:
            changes[0] = self._bar(job).replace(str(visitor.folder), _FOLDER)
            changes[1] = gradio.update(visible=job is not None and job.active and not job.stopping)
            seen[f"{self.name}.progress"] = version
        if seen.get(f"{self.name}.result") != shown:
            changes[2] = render("coming", words=self._coming) if _awaited(job) else self._shown(job)
            seen[f"{self.name}.result"] = shown
        return changes

    def _bar(self, job: Job | None) -> str:
        ahead = self._studio.queue.ahead(job) if job else 0
        line = curve(job.losses) if job else ""
        return render("progress", job=job, ahead=ahead, curve=line, cancelled=self._cancelled)

    def _cancel(self, request: gradio.Request) -> list[Any]:
        visitor = self._studio.visitor(request)
        job = visitor.jobs.get(self.name)
        if job is not None and job.active:
            self._studio.queue.cancel(job)
        return self.update(visitor, {f"{self.name}.result": _showing(job)})

    def started(self, begin: Callable[..., tuple[str, Work]]) -> Callable[..., list[Any]]:
        """A handler: ``begin`` checks what was asked, and gives the job's title and work; what is wrong is
        shown in the place of the progress.
        """

        # Gradio passes the request to the first parameter, by its annotation.
        def handler(request: gradio.Request, *values: Any) -> list[Any]:
            visitor = self._studio.visitor(request)
            try:
                title, work = begin(visitor, *values)
                last = visitor.jobs.get(self.name) if self._keeps else None
                self._studio.start(visitor, self.name, title, work, last.result if last else None)
            except PiuLoraError as error:
                words = str(error).replace(str(visitor.folder), _FOLDER)
                return [render("fault", words=words), gradio.skip(), gradio.skip()]
            return self.update(visitor, {})

        return handler


def _awaited(job: Job | None) -> bool:
    """Whether a job is at work and has nothing to show yet."""
    return job is not None and job.active and job.result is None


def _showing(job: Job | None) -> tuple[Any, ...]:
    return (job.key, job.shown, _awaited(job)) if job else ()


def _clock(job: Job) -> int:
    return job.count if job.active else -1


def quiet_event() -> dict[str, Any]:
    """How the studio's events are set up: no spinner over what is shown, not in the API's pages."""
    return {"show_progress": "hidden", "api_visibility": "private", "queue": False}


_CLICKS = """
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-person], [data-point]');
  if (target) trigger('click', {person: target.dataset.person, point: target.dataset.point});
});
"""
