"""Several browsers at once, photographs that are dropped, and what is left of it all."""

import base64
import io
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from piu_lora.evidence.picture import to_image
from piu_lora.model import find_family
from tests.studio.browser import Eye, Running

# After test_browser, in the same studio.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
WAIT = 600_000
EMPTY = ("Forget", "Explore", "Stack", "Evidence", "Requests")
DROP = """(box, files) => {
  const data = new DataTransfer();
  for (const [name, type, bytes] of files)
    data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, {type}));
  box.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def other(studio: Running, chromium: Any) -> Iterator[Eye]:
    """A browser that has seen nothing yet, on a phone, in the dark."""
    with Eye.of(chromium, studio.address, 360, "dark") as eye:
        eye.open()
        yield eye


def portraits(count: int) -> list[bytes]:
    """Rendered photographs of one person, which no bank holds."""
    companions = find_family("mini").companions
    assert companions is not None
    assert companions.photographs is not None
    files = []
    for picture in companions.photographs(33, count):
        buffer = io.BytesIO()
        to_image(picture, picture.shape[-1]).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def files_of(studio: Running) -> set[Path]:
    return {path for path in studio.folders[0].rglob("*") if path.is_file()}


def test_another_browser_sees_empty_pages_that_can_be_read(
    first: Eye, other: Eye, studio: Running, tmp_path: Path
) -> None:
    other.see(".tile[data-person]")
    for tab in EMPTY:
        other.tab(tab)
        other.see(f"#{tab.lower()}-result .empty")
        other.looked_at(tmp_path, f"empty-{tab.lower()}", 360, "dark")
    first.open()
    first.tab("Evidence")
    first.see("#evidence-result iframe.report")
    source = first.page.locator("#evidence-result iframe.report").get_attribute("src")
    assert other.page.context.request.get(studio.address + str(source)).status == 404
    assert first.page.context.request.get(studio.address + str(source)).status == 200


def test_an_adapter_is_opened_by_its_folder(other: Eye) -> None:
    other.open()
    other.see(".tile[data-person]")
    other.tab("Explore")
    folder = sorted((ROOT / "adapters").glob("mini-piu-*"))[0]
    other.page.get_by_text("Open another adapter").first.click()
    other.page.get_by_label("A folder of this machine, or a Hub id").first.fill(str(folder / "none"))
    other.page.get_by_role("button", name="Open", exact=True).first.click()
    other.see(".fault:visible")
    other.page.get_by_label("A folder of this machine, or a Hub id").first.fill(str(folder))
    other.page.get_by_role("button", name="Open", exact=True).first.click()
    other.see("#explore-adapters input:checked")


def test_photographs_are_dropped_and_bad_ones_refused_with_a_reason(
    other: Eye, studio: Running, tmp_path: Path
) -> None:
    page = other.page
    other.tab("Forget")
    page.locator("#forget-source").get_by_label("Photographs").check()
    page.click("#forget-go")
    other.see("#forget-progress .fault:has-text('there is no photograph yet')")
    other.looked_at(tmp_path, "fault", 360, "dark")
    files = [(f"ann {place}.png", "image/png", one) for place, one in enumerate(portraits(2))]
    files += [("notes.jpg", "image/jpeg", b"not a picture"), ("huge.png", "image/png", b"0" * 10_000_001)]
    sent = [(name, kind, base64.b64encode(content).decode()) for name, kind, content in files]
    page.locator(".drop").evaluate(DROP, sent)
    other.see("#forget-dropped img >> nth=1")
    refused = page.locator(".drop .refused li").all_inner_texts()
    assert refused == [
        "huge.png: larger than 10 MB",
        "notes.jpg: no JPEG, PNG or WebP picture that can be read",
    ]
    kept = [path for path in files_of(studio) if path.parent.name == "photographs"]
    assert sorted(path.name for path in kept) == ["01.png", "02.png"]
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    other.looked_at(tmp_path, "photographs", 360, "dark")


def test_work_waits_its_turn_and_cancelled_work_leaves_nothing(
    first: Eye, other: Eye, studio: Running
) -> None:
    page = first.page
    before = files_of(studio)
    first.open()
    first.write("forget-person", "mini-0020")
    page.click("#forget-method input")
    page.get_by_role("option", name=re.compile(r"^piu\b(?!-)")).click()
    page.click("#forget-go")
    first.see("#forget-progress [role=progressbar][aria-label=train]")
    first.see("#forget-progress .curve")
    other.page.get_by_text("More settings").click()
    other.page.get_by_label("Measure it afterwards").uncheck()
    other.page.click("#forget-go")
    other.see("#forget-progress .step:has-text('waiting: 1 job first')")
    assert "photographs" in other.page.locator("#forget-progress .what").inner_text()
    page.click("#forget-cancel")
    first.see("#forget-progress .note:has-text('Cancelled')")
    other.see("#forget-progress .busy")
    other.page.click("#forget-cancel")
    other.see("#forget-progress .note:has-text('Cancelled')")
    assert files_of(studio) == before
    assert page.locator("#forget-progress .note").inner_text().startswith("Cancelled: forget mini-0020")
    assert first.faults == []
    assert other.faults == []


def test_somebody_in_photographs_is_forgotten_after_a_reload(other: Eye, tmp_path: Path) -> None:
    page = other.page
    other.open()
    page.locator("#forget-source").get_by_label("Photographs").check()
    other.see("#forget-dropped img >> nth=1")
    page.get_by_text("More settings").click()
    page.get_by_label("Measure it afterwards").uncheck()
    page.click("#forget-go")
    other.see("#forget-result .take")
    assert "The person in the photographs" in page.locator("#forget-result").inner_text()
    page.click("[data-remove]")
    page.locator("#forget-dropped img").first.wait_for(state="detached")
    other.tab("Explore")  # whom they show is known without them
    for box in page.locator("#explore-adapters label:has-text('photographs') input").all():
        box.check()
    page.locator("#explore-adapters label:not(:has-text('photographs')) input").uncheck()
    page.click("#explore-draw")
    other.see("#explore-result .compare")
    other.looked_at(tmp_path, "explore-photographs", 360, "dark")
    assert other.faults == []


def test_real_photographs_are_taken_as_files(other: Eye, studio: Running) -> None:
    shared = Path(os.environ.get("PIU_LORA_FACES", ROOT.parent / "shared" / "faces"))
    people = sorted((shared / "portraits").glob("*/2024.jpg"))
    if not people:
        pytest.skip(f"no portraits at {shared.name}/portraits")
    page = other.page
    other.tab("Forget")
    page.set_input_files("#photographs", [people[0]])
    other.see("#forget-dropped img")
    page.click("#forget-go")  # the embedded base cannot know them, and either way says something
    other.see("#forget-progress .fault, #forget-progress .done")
    assert str(studio.root) not in page.content()
    assert people[0].parent.name not in page.content()
    page.click("[data-remove]")
    page.locator("#forget-dropped img").first.wait_for(state="detached")


def test_nothing_tells_where_it_lies(first: Eye, studio: Running) -> None:
    ask = first.page.context.request
    for path in ("config", "gradio_api/info", "gradio_api/startup-events", "studio/face/7.webp"):
        text = ask.get(studio.address + path).body()
        assert str(studio.root).encode() not in text
    assert ask.get(studio.address + "gradio_api/file=/etc/hostname").status == 404
    assert ask.post(studio.address + "gradio_api/upload", multipart={}).status == 404
    assert studio.folders[0].stat().st_mode & 0o777 == 0o700
    modes = {path: path.stat().st_mode & 0o777 for path in files_of(studio)}
    assert set(modes.values()) <= {0o600, 0o644}  # what is published may be read, once it is taken along
    faces = [path for path in modes if path.suffix in (".png", ".html", ".npy", ".webp")]
    assert faces
    assert {modes[path] for path in faces} == {0o600}


def test_nothing_goes_out_and_nothing_is_kept_elsewhere(studio: Running) -> None:
    machine = ("127.0.0.1", "::1")
    for connection in psutil.Process(studio.process.pid).net_connections():
        assert not connection.raddr or connection.raddr.ip in machine
    names = {path.name for path in studio.root.iterdir()} - {path.name for path in studio.folders}
    assert names == {"cache", "release", "studio.log"}
    assert {path.parent.name for path in (studio.root / "cache").rglob("*") if path.is_file()} == {"retained"}
    assert "mini-00" not in (studio.root / "studio.log").read_text()


def test_nothing_is_left_when_it_ends(studio: Running) -> None:
    assert studio.folders
    with urllib.request.urlopen(studio.address) as page:
        assert page.status == 200
    studio.process.terminate()
    studio.process.wait(60)
    assert studio.folders == []
    assert "Traceback" not in (studio.root / "studio.log").read_text()
