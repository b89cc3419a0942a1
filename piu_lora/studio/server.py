"""Serving the studio: on this machine alone unless a password is set."""

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piu_lora.errors import BadInput, EnvironmentProblem, PiuLoraError
from piu_lora.studio.bench import BaseChoice, Bench
from piu_lora.studio.queue import Job, WorkQueue
from piu_lora.studio.visitors import Visitors, private_folder

__all__ = ["LOOPBACK", "StudioSettings", "serve"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
_log = logging.getLogger("piu_lora")


@dataclass(frozen=True)
class StudioSettings:
    """How a studio is served.

    Attributes:
        auth: ``user:password``; needed wherever other machines can reach the studio.
        space: served as a Space of the Hugging Face Hub, to everybody and within another page: no folder of
            the machine may be named.
    """

    choice: BaseChoice = field(default_factory=BaseChoice)
    host: str = "127.0.0.1"
    port: int = 7860
    auth: str = ""
    space: bool = False

    def __post_init__(self) -> None:
        if self.auth and (":" not in self.auth or self.auth.endswith(":") or self.auth.startswith(":")):
            raise BadInput("auth is no USER:PASSWORD; write both, with a colon between them")
        if self.host not in LOOPBACK and not self.auth and not self.space:
            raise BadInput(
                f"host = {self.host!r} lets other machines in, and the studio shows forgotten people; "
                "pass auth=USER:PASSWORD too"
            )


def serve(settings: StudioSettings, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until interrupted; afterwards nothing of any visitor is left on the disk.

    Args:
        ready: told the address once the page answers.

    Raises:
        EnvironmentProblem: the port is taken, or the extra ``studio`` is not installed.
    """
    listener = _listener(settings)
    previous = os.umask(0o077)
    try:
        with private_folder() as folder, _private_gradio(folder):
            queue = WorkQueue()
            bench = Bench(settings.choice)

            def started() -> None:
                # The page comes first: both at once would take turns.
                queue.add(Job("open the base", lambda job: _open(bench)))
                ready(_address(settings, listener))

            try:
                _run(_application(settings, bench, queue, Visitors(folder)), listener, started)
            finally:
                queue.close()
    finally:
        os.umask(previous)
        listener.close()


def _open(bench: Bench) -> None:
    try:
        bench.open()
    except PiuLoraError as error:
        bench.failure = str(error)
        raise


def _listener(settings: StudioSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listener.close()
        raise EnvironmentProblem(
            f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}; choose another port"
        ) from error
    return listener


def _address(settings: StudioSettings, listener: socket.socket) -> str:
    return f"http://{settings.host}:{listener.getsockname()[1]}/"


@contextlib.contextmanager
def _private_gradio(folder: Path) -> Iterator[None]:
    """Gradio, and whatever else wants a temporary file, keeps it within the private folder; analytics are
    off.
    """
    wanted = {
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before, elsewhere = {name: os.environ.get(name) for name in wanted}, tempfile.tempdir
    os.environ.update(wanted)
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = elsewhere
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _application(settings: StudioSettings, bench: Bench, queue: WorkQueue, visitors: Visitors) -> Any:
    try:
        import gradio
    except ImportError as error:
        raise EnvironmentProblem(
            "the studio needs Gradio, which is not installed; run `pip install 'piu-lora[studio]'`"
        ) from error
    from fastapi import FastAPI

    from piu_lora.studio.guard import Guard
    from piu_lora.studio.page import build_page
    from piu_lora.studio.pages.base import COOKIE, Studio
    from piu_lora.studio.routes import Routes
    from piu_lora.studio.theme import HEAD, style, theme
    from piu_lora.studio.uploads import LARGEST, MOST

    blocks = build_page(Studio(bench, queue, visitors, files=not settings.space))
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    application.include_router(Routes(bench, visitors).router)
    gradio.mount_gradio_app(
        application,
        blocks,
        path="/",
        server_name=settings.host,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=0,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        theme=theme(),
        css=style(),
        head=HEAD,
    )
    own = settings.host in LOOPBACK and not settings.space
    return Guard(
        application,
        COOKIE,
        hosts=LOOPBACK if own else None,
        password=settings.auth,
        framed=settings.space,
        largest=LARGEST * MOST + 1_000_000,  # and what a form adds
    )


def _run(application: Any, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until a signal says to stop, then return, so that what has to be cleared away is."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Open pages hold a connection each; that it is cut is no error to tell.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
            await super().shutdown(sockets)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            kept = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
            try:
                yield
            finally:
                for number, handler in kept.items():
                    signal.signal(number, handler)

    config = uvicorn.Config(
        application, log_level="warning", access_log=False, timeout_graceful_shutdown=1, server_header=False
    )
    Server(config).run(sockets=[listener])


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
