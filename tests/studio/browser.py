"""A studio in a process of its own, and a real browser that looks at it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SCHEMES = ("light", "dark")
WIDTHS = (1280, 360)
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
# axe-core as npm packs it; .ci/run fetches it where npm is at hand.
AXE = Path(os.environ.get("PIU_LORA_AXE", Path(__file__).parents[2] / ".ci-cache" / "axe.min.js"))
# Where screenshots for the documentation go; nowhere by default.
SHOTS = os.environ.get("PIU_LORA_SCREENSHOTS")


def needed() -> None:
    """Skip where something is missing, and say what."""
    pytest.importorskip("gradio", reason="no Gradio here (pip install '.[studio]')")
    pytest.importorskip("playwright", reason="no Playwright here (pip install '.[browser]')")
    if BROWSER is None:
        pytest.skip("no chromium here (Debian: apt-get install chromium)")


@dataclass
class Running:
    """A studio that answers."""

    address: str
    root: Path
    began: float
    process: "subprocess.Popen[str]"

    @property
    def folders(self) -> list[Path]:
        """The private folders of studios under its own temporary folder."""
        return list(self.root.glob("piu-lora-*-studio-*"))


@contextlib.contextmanager
def running(root: Path, *command: str) -> Iterator[Running]:
    """Start a studio, and end it as a person would."""
    words = command or (sys.executable, "-m", "piu_lora", "studio", "--port", "0")
    environment = {
        **os.environ,
        "TMPDIR": str(root),
        "PIU_LORA_CACHE": str(root / "cache"),  # from nothing: no statistics of an earlier run
        "PIU_LORA_LEDGER": str(root / "ledger.sqlite"),
        "PYTHONUNBUFFERED": "1",
    }
    began = time.monotonic()
    with (root / "studio.log").open("w") as log:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
        )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), (root / "studio.log").read_text()
        yield Running(address, root, began, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(120)
        finally:
            process.kill()


@dataclass
class Eye:
    """A page, and everything that went wrong on it."""

    page: Any
    address: str
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(120_000)  # a busy machine is slow, not wrong
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._outside)
        self.page.on("response", self._answered)

    @classmethod
    @contextlib.contextmanager
    def of(
        cls, chromium: Any, address: str, width: int = 1280, scheme: str = "light", **options: Any
    ) -> Iterator["Eye"]:
        """A browser of its own, with its own cookies."""
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",  # nothing that moves while it is looked at
            **options,
        )
        try:
            yield cls(context.new_page(), address)
        finally:
            context.close()

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text}")

    def _failed(self, request: Any) -> None:
        if "ERR_ABORTED" not in str(request.failure):  # left behind by a reload
            self.faults.append(f"failed: {request.url} {request.failure}")

    def _outside(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"outside: {request.url}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status}: {response.url}")

    def open(self) -> None:
        self.page.goto(self.address)
        self.page.wait_for_selector("#forget-go", timeout=300_000)  # a busy machine is slow, not wrong

    def write(self, name: str, words: str) -> None:
        """Into the field of that id."""
        self.page.locator(f"#{name} input, #{name} textarea").first.fill(words)

    def see(self, selector: str, seconds: float = 600) -> None:
        """Wait until something is there; looking now and then leaves the processor to the studio."""
        end = time.monotonic() + seconds
        while not self.page.locator(selector).first.is_visible():
            assert time.monotonic() < end, f"{selector} did not come within {seconds:.0f} s"
            self.page.wait_for_timeout(200)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def overflow(self) -> list[str]:
        """What sticks out of the window without scrolling by itself."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll('main *')].filter(box => {
                const edges = box.getBoundingClientRect();
                return edges.width > 0 && edges.right > innerWidth + 1
                  && !box.closest('.scroll, .strip, .wall, svg, .stage, .bar')
                  && getComputedStyle(box).visibility !== 'hidden';
              }).map(box => box.tagName + '.' + box.className + ' ' + box.getBoundingClientRect().right)"""
        )
        return found

    def serious(self) -> list[str]:
        """The serious faults that axe-core finds in what is shown."""
        if not self.page.evaluate("'axe' in window"):
            self.page.add_script_tag(content=AXE.read_text())
        result = self.page.evaluate("axe.run(document, {iframes: false, resultTypes: ['violations']})")
        return [
            f"{fault['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:160]}"
            for fault in result["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    def looked_at(self, folder: Path, name: str, width: int, scheme: str, part: str = "") -> None:
        """One screenshot, which is as wide and as dark as it ought to be, and has no serious fault."""
        import numpy as np
        from PIL import Image

        self.page.wait_for_timeout(400)
        path = self.shot(folder, f"{name}-{width}-{scheme}", part=part)
        with Image.open(path) as picture:
            assert part or picture.width == width
            assert (np.median(np.asarray(picture.convert("L"))) < 80) == (scheme == "dark")
        assert self.overflow() == []
        if AXE.exists():
            assert self.serious() == []

    def shot(self, folder: Path, name: str, *, whole: bool = True, part: str = "") -> Path:
        """A screenshot, of all or of a part; also one for the documentation where that is asked for."""
        path = folder / f"{name}.png"
        if part:
            self.page.locator(part).screenshot(path=path)
        else:
            self.page.screenshot(path=path, full_page=whole)
        if SHOTS:
            from PIL import Image

            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            with Image.open(path) as picture:
                picture.convert("RGB").save(Path(SHOTS) / f"{name}.webp", quality=62, method=6)
        return path
