"""The studio in a real browser, from nothing to a report, at two widths, light and dark."""

import io
import json
import re
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.studio.browser import AXE, BROWSER, SCHEMES, SHOTS, WIDTHS, Eye, Running, needed, running

# One after the other, in one browser: each goes on from where the last one stopped.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]
TABS = {
    "Forget": ".take",
    "Explore": ".strip",
    "Stack": "#stack-result .pair",
    "Evidence": "#evidence-result iframe.report",
    "Requests": "#requests-open",
}
FIRST_LOOK, INTERACTIVE = 120.0, 5.0  # seconds, on two quiet cores
WAIT = 600_000


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    needed()
    with running(tmp_path_factory.mktemp("studio")) as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    needed()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(BROWSER), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def first(studio: Running, chromium: Any) -> Iterator[Eye]:
    """The browser that does everything, once."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield Eye(context.new_page(), studio.address)
    context.close()


def chosen(eye: Eye, name: str) -> None:
    """All adapters at hand are chosen."""
    for box in eye.page.locator(f"#{name}-adapters input[type=checkbox]").all():
        box.check()


def test_from_nothing_to_before_and_after(
    studio: Running, first: Eye, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    page, began = first.page, time.monotonic()
    first.open()
    interactive = time.monotonic() - began
    page.click("[data-person=mini-0012]", timeout=WAIT)
    page.wait_for_function("document.querySelector('#forget-person input, #forget-person textarea').value")
    page.get_by_text("More settings").click()
    page.get_by_label("Measure it afterwards").uncheck()  # comes after the first look
    page.click("#forget-go")
    page.wait_for_selector("#forget-progress .busy, #forget-progress .done", timeout=WAIT)
    page.wait_for_selector(".compare", timeout=WAIT)
    looked = time.monotonic() - studio.began
    measured = {"page interactive": interactive, "first before and after": looked}
    for name, seconds in measured.items():
        record_property(f"seconds: {name}", round(seconds, 1))
    results = Path(SHOTS or tmp_path)
    results.mkdir(parents=True, exist_ok=True)
    (results / "seconds.json").write_text(
        json.dumps({key: round(value, 1) for key, value in measured.items()})
    )
    assert page.locator("#forget-result .pair").count() == 4
    slider = page.locator(".compare input").first
    slider.focus()
    slider.press("Home")
    assert page.locator(".compare").first.get_attribute("style") == "--cut: 0%;"
    page.wait_for_selector(".take", timeout=WAIT)
    if quiet():
        assert looked <= FIRST_LOOK
        assert interactive <= INTERACTIVE


def test_a_reloaded_page_finds_its_job_and_its_verdict(first: Eye, tmp_path: Path) -> None:
    page = first.page
    page.reload()
    page.wait_for_selector(".take", timeout=60_000)
    page.wait_for_function("[...document.querySelectorAll('.tile img')].slice(0, 12).every(i => i.complete)")
    page.click("[data-person=mini-0007]", timeout=WAIT)
    page.wait_for_function("document.querySelector('#forget-person input, #forget-person textarea').value")
    first.shot(tmp_path, "wall", whole=False)
    page.click("#forget-go")
    page.wait_for_selector("#forget-progress .busy", timeout=WAIT)
    page.reload(timeout=WAIT)
    page.wait_for_selector("#forget-progress .busy:has-text('mini-0007')", timeout=WAIT)
    page.wait_for_selector("#forget-progress .done", timeout=WAIT)
    page.wait_for_selector("#forget-result .take", timeout=WAIT)
    assert page.locator("#forget-result .answer").count() == 3
    assert first.faults == []


def quiet() -> bool:
    """Whether this machine has nothing else to do; beside other work the clock says little."""
    import psutil

    return psutil.getloadavg()[0] < 2.5


def test_the_folder_is_taken_along_whole(studio: Running, first: Eye) -> None:
    with first.page.expect_download() as waiting:
        first.page.click(".take a")
    with zipfile.ZipFile(waiting.value.path()) as archive:
        names = {name.split("/", 1)[1] for name in archive.namelist()}
    assert {"pytorch_lora_weights.safetensors", "forget.json", "README.md"} <= names


def test_exploring(first: Eye) -> None:
    page = first.page
    first.tab("Explore")
    chosen(first, "explore")
    page.click("#explore-map")
    page.wait_for_selector("#explore-result .map circle", timeout=WAIT)
    point = page.locator("#explore-result circle[tabindex]").first
    point.hover(force=True)
    page.wait_for_selector(".who-card:not([hidden])")
    point.press("Enter")
    page.wait_for_selector("#explore-result .compare", timeout=WAIT)
    first.page.click("#explore-walk")
    page.wait_for_selector("#explore-result .strip", timeout=WAIT)
    assert page.locator(".strip figure").count() == 7
    assert first.faults == []


def test_the_stack_of_both(first: Eye) -> None:
    page = first.page
    first.tab("Stack")
    page.wait_for_function("document.querySelectorAll('#stack-adapters input').length === 2")
    chosen(first, "stack")
    for button in ("#stack-fuse", "#stack-merge"):
        page.click(button)
        page.wait_for_selector("#stack-progress .busy", timeout=WAIT)
        page.wait_for_selector("#stack-progress .done", timeout=WAIT)
        page.wait_for_selector("#stack-result .take a")
    page.click("#stack-check")
    page.wait_for_selector(".heat td", timeout=WAIT)
    assert page.locator(".heat tbody tr").count() == 3
    page.wait_for_selector("#stack-progress .done", timeout=WAIT)
    assert page.locator("#stack-result .pair").count() == 4
    assert first.faults == []


def test_evidence_is_read_in_place(first: Eye) -> None:
    page = first.page
    first.tab("Evidence")
    page.locator("#evidence-adapters input").first.check()
    page.click("#evidence-go")
    page.wait_for_selector("#evidence-result iframe.report", timeout=WAIT)
    report = page.frame_locator("#evidence-result iframe.report")
    report.locator("#verdict").wait_for()
    assert report.locator(".answer").count() == 3
    assert first.faults == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_fits_and_can_be_read(
    first: Eye, studio: Running, chromium: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        storage_state=first.page.context.storage_state(),
    )
    eye = Eye(context.new_page(), studio.address)
    eye.open()
    for tab, there in TABS.items():
        eye.tab(tab)
        eye.page.wait_for_selector(there, timeout=60_000)
        looked_at(eye, tmp_path, tab.lower(), width, scheme)
    assert eye.faults == []
    context.close()


def looked_at(eye: Eye, folder: Path, name: str, width: int, scheme: str, part: str = "") -> None:
    """One screenshot, which is as wide and as dark as it ought to be, and has no serious fault."""
    eye.page.wait_for_timeout(400)
    path = eye.shot(folder, f"{name}-{width}-{scheme}", part=part)
    with Image.open(path) as picture:
        assert part or picture.width == width
        assert (np.median(np.asarray(picture.convert("L"))) < 80) == (scheme == "dark")
    assert eye.overflow() == []
    if AXE.exists() and (width, scheme) in ((1280, "light"), (360, "dark")):
        assert eye.serious() == []


def test_axe_was_at_hand() -> None:
    needed()
    if not AXE.exists():
        pytest.skip(f"no axe-core at {AXE.name} (npm pack axe-core), so accessibility was not checked")


def test_another_browser_sees_nothing_of_it(first: Eye, studio: Running, chromium: Any) -> None:
    context = chromium.new_context()
    other = Eye(context.new_page(), studio.address)
    other.open()
    other.page.wait_for_selector("#forget-result .empty")
    first.tab("Evidence")
    source = first.page.locator("#evidence-result iframe.report").get_attribute("src")
    assert context.request.get(studio.address + str(source)).status == 404
    assert first.page.context.request.get(studio.address + str(source)).status == 200
    context.close()


def test_cancelled_work_leaves_nothing(first: Eye, studio: Running) -> None:
    page = first.page
    before = {path for path in studio.folders[0].rglob("*") if path.is_file()}
    first.tab("Forget")
    page.fill("#forget-person input, #forget-person textarea", "mini-0020")
    page.click("#forget-method input")
    page.get_by_role("option", name=re.compile(r"^piu\b(?!-)")).click()
    page.click("#forget-go")
    page.wait_for_selector("#forget-progress [role=progressbar][aria-label=train]", timeout=WAIT)
    page.click("#forget-cancel")
    page.wait_for_selector("#forget-progress .note:has-text('Cancelled')", timeout=WAIT)
    assert {path for path in studio.folders[0].rglob("*") if path.is_file()} == before
    assert first.faults == []


def test_nothing_tells_where_it_lies_and_photographs_are_refused_with_a_reason(
    first: Eye, studio: Running
) -> None:
    ask = first.page.context.request
    for path in ("config", "gradio_api/info", "gradio_api/startup-events", "studio/face/7.webp"):
        text = ask.get(studio.address + path).body()
        assert str(studio.root).encode() not in text
    assert ask.get(studio.address + "gradio_api/file=/etc/hostname").status == 404
    portrait = io.BytesIO(ask.get(studio.address + "studio/face/7.webp").body()).getvalue()
    sent = {"name": "me.webp", "mimeType": "image/webp", "buffer": portrait}
    bad = {"name": "me.txt", "mimeType": "text/plain", "buffer": b"not a picture"}
    taken = ask.post(studio.address + "studio/photographs", multipart={"photographs": sent}).json()
    refused = ask.post(studio.address + "studio/photographs", multipart={"photographs": bad}).json()
    assert taken == {"words": "1 taken", "refused": [], "kept": 1}
    assert refused["refused"] == ["me.txt: no JPEG, PNG or WebP picture that can be read"]
    modes = {path.stat().st_mode & 0o777 for path in studio.folders[0].rglob("*") if path.is_file()}
    assert modes <= {0o600, 0o644}
    assert studio.folders[0].stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_when_it_ends(studio: Running) -> None:
    assert studio.folders
    with urllib.request.urlopen(studio.address) as page:
        assert page.status == 200
    studio.process.terminate()
    studio.process.wait(60)
    assert studio.folders == []
