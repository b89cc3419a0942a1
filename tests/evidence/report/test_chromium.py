"""The page in a real browser: it fits, shows no error, and is light or dark as asked."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piu_lora.evidence.report import report_html
from tests.evidence.report.example import pictures, report

BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (path := shutil.which(name))
    ),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium here (Debian: apt-get install chromium)"),
]

# A headless window is at least 500 wide, so the page is looked at in a frame of the width asked for. The
# frame's own document measures itself: its width against the window's, and every box that sticks out of it
# without being inside one that scrolls, and words of a chart that lie on other words.
MEASURE = """<script>addEventListener("load", () => {
  const wide = document.documentElement, out = [];
  for (const box of document.querySelectorAll("main *")) {
    const within = box.closest(".scroll, .sheet, pre");
    if (!within && box.getBoundingClientRect().right > innerWidth + 0.5) out.push(box.tagName);
  }
  for (const chart of document.querySelectorAll("figure > svg")) {
    const level = [...chart.querySelectorAll("text:not([transform])")];
    const words = level.map(word => [word.textContent, word.getBoundingClientRect()]);
    for (const [one, a] of words) for (const [other, b] of words) {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Boxes of text are taller than its letters by a third.
      if (one < other && across > 1 && down > a.height / 3)
        out.push(chart.getAttribute("aria-label") + ": " + one + " / " + other);
    }
  }
  parent.postMessage([wide.scrollWidth, innerWidth, wide.scrollHeight, out.join(" | ")].join(","), "*");
})</script>"""
FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe src="page.html" style="border:0;width:{width}px;height:{height}px"></iframe>
<script>addEventListener("message", found => document.body.append("measured:" + found.data + ";"))</script>"""


def browse(folder: Path, *arguments: str, width: int, height: int = 2000) -> str:
    (folder / "frame.html").write_text(FRAME.format(width=width, height=height))
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={max(width, 500)},{height}",
        *arguments,
        f"file://{folder / 'frame.html'}",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def page(folder: Path, *, measured: bool) -> None:
    text = report_html(report(), pictures())
    if measured:
        text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace(
            "</body>", MEASURE + "</body>"
        )
    (folder / "page.html").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window_and_no_words_overlap(tmp_path: Path, width: int) -> None:
    page(tmp_path, measured=True)
    shown = browse(tmp_path, "--dump-dom", "--virtual-time-budget=5000", width=width)
    found = re.search(r"measured:(\d+),(\d+),(\d+),([^;<]*);", shown)
    assert found is not None, shown[-500:]
    assert int(found[2]) == width
    assert int(found[1]) <= width
    assert found[4] == ""
    assert int(found[3]) > 3000


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
def test_the_page_is_light_or_dark_as_asked(tmp_path: Path, width: int, scheme: str, dark: bool) -> None:
    page(tmp_path, measured=False)
    shot = tmp_path / "shot.png"
    browse(tmp_path, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}", width=width)
    with Image.open(io.BytesIO(shot.read_bytes())) as picture:
        pixels = np.asarray(picture.convert("L"))[:, :width]
    assert (np.median(pixels) < 60) == dark
    assert (np.median(pixels) > 200) == (not dark)
    assert len(np.unique(pixels)) > 50  # something is drawn
