"""The studio in a real browser, from nothing to a report, at two widths, light and dark."""

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from piu_lora.config import ForgetConfig
from piu_lora.jobs.releases.release import create_release, open_release
from piu_lora.model import find_family
from tests.jobs.releases.conftest import QUICK as QUICK_GATES
from tests.studio.browser import AXE, SCHEMES, SHOTS, WIDTHS, Eye, Running, needed

# One after the other, in one browser: each goes on from where the last one stopped.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
ARENA = ROOT / "benchmarks" / "results" / "compare"
TABS = {
    "Forget": ".take",
    "Explore": ".strip",
    "Stack": "#stack-result .pair",
    "Evidence": "#evidence-result iframe.report",
    "Requests": "#requests-result .result",
}
FIRST_LOOK, INTERACTIVE = 120.0, 5.0  # seconds, on two quiet cores
WAIT = 600_000
FEW = "evaluation.forget_images=8 evaluation.retain_images=8 evaluation.nearest=4 evaluation.steps=10"


def quiet() -> bool:
    """Whether this machine has nothing else to do; beside other work the clock says little."""
    return psutil.getloadavg()[0] < 2.5


def picked(eye: Eye, person: str) -> None:
    """Somebody of the wall is clicked, and stands in the form."""
    eye.page.click(f"[data-person={person}]", timeout=WAIT)
    eye.page.wait_for_function(
        f"document.querySelector('#forget-person input, #forget-person textarea').value === '{person}'"
    )


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
    picked(first, "mini-0012")
    page.get_by_text("More settings").click()
    page.get_by_label("Measure it afterwards").uncheck()  # comes after the first look
    page.click("#forget-go")
    first.see("#forget-progress .busy, #forget-progress .done")
    first.see(".compare")
    looked = time.monotonic() - studio.began
    computed = sum(psutil.Process(studio.process.pid).cpu_times()[:2])
    measured = {
        "page interactive": interactive,
        "first before and after": looked,
        "processor time of the studio till then": computed,
    }
    for name, seconds in measured.items():
        record_property(f"seconds: {name}", round(seconds, 1))
    results = Path(SHOTS or tmp_path)
    results.mkdir(parents=True, exist_ok=True)
    (results / "seconds.json").write_text(
        json.dumps({key: round(value, 1) for key, value in measured.items()})
    )
    assert page.locator("#forget-result .pair").count() == 4
    assert page.locator("#forget-result .anchor").count() == 1
    slider = page.locator(".compare input").first
    slider.focus()
    slider.press("Home")
    assert page.locator(".compare").first.get_attribute("style") == "--cut: 0%;"
    first.see(".take")
    assert computed <= FIRST_LOOK
    if quiet():
        assert looked <= FIRST_LOOK
        assert interactive <= INTERACTIVE


def test_a_reloaded_page_finds_its_job_and_its_verdict(first: Eye, tmp_path: Path) -> None:
    page = first.page
    page.reload()
    first.see(".take")
    picked(first, "mini-0007")
    page.get_by_text("More settings").click()
    page.get_by_label("Other settings").fill(FEW)
    page.click("#forget-go")
    first.see("#forget-progress .busy")
    page.reload(timeout=WAIT)
    first.see("#forget-progress .busy:has-text('mini-0007')")
    first.shot(tmp_path, "forget-busy", whole=False)
    first.see("#forget-progress .done")
    first.see("#forget-result .take")
    assert page.locator("#forget-result .answer").count() == 3
    assert page.locator("#forget-result .figures table").count() >= 1
    picked(first, "mini-0007")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function("[...document.querySelectorAll('.tile img')].slice(0, 12).every(i => i.complete)")
    first.shot(tmp_path, "wall", whole=False)
    assert first.faults == []


def test_the_folder_is_taken_along_whole(first: Eye) -> None:
    with first.page.expect_download() as waiting:
        first.page.click(".take a")
    with zipfile.ZipFile(waiting.value.path()) as archive:
        names = {name.split("/", 1)[1] for name in archive.namelist()}
    assert {"pytorch_lora_weights.safetensors", "forget.json", "README.md"} <= names


def test_exploring(first: Eye, tmp_path: Path) -> None:
    page = first.page
    first.tab("Explore")
    chosen(first, "explore")
    page.get_by_text("How faces are drawn").click()
    page.locator("#explore-steps input[type=number]").fill("10")
    page.click("#explore-map")
    first.see("#explore-result .map circle")
    first.shot(tmp_path, "map", whole=False)
    point = page.locator("#explore-result circle[tabindex]").first
    point.hover(force=True)
    first.see(".who-card:not([hidden])")
    point.press("Enter")
    first.see("#explore-result .compare")
    strength = page.locator("#explore-strength input[type=range]")
    assert (strength.get_attribute("min"), strength.get_attribute("max")) == ("0", "1.5")
    page.get_by_label("Allow a negative strength").check()
    first.see("#explore-strength input[type=range][min='-1']")
    page.get_by_label("Allow a negative strength").uncheck()
    page.click("#explore-walk")
    first.see("#explore-result .strip")
    assert page.locator(".strip figure").count() == 7
    assert first.faults == []


def test_the_stack_of_both(first: Eye) -> None:
    page = first.page
    first.tab("Stack")
    page.wait_for_function("document.querySelectorAll('#stack-adapters input').length === 2")
    chosen(first, "stack")
    for work in ("fuse", "merge"):
        page.click(f"#stack-{work}")
        first.see(f"#stack-progress .done:has-text('{work} 2')")
        first.see("#stack-result .take a")
    page.click("#stack-check")
    first.see(".heat td")
    assert page.locator(".heat tbody tr").count() == 3
    first.see("#stack-progress .done:has-text('check 2')")
    assert page.locator("#stack-result .pair").count() == 4
    assert first.faults == []


def test_evidence_is_read_in_place(first: Eye) -> None:
    page = first.page
    first.tab("Evidence")
    page.locator("#evidence-adapters input").nth(1).check()
    page.click("#evidence-go")
    first.see("#evidence-result iframe.report")
    report = page.frame_locator("#evidence-result iframe.report")
    report.locator("#verdict").wait_for()
    assert report.locator(".answer").count() == 3
    assert first.faults == []


def test_a_point_of_an_arena_is_clicked_and_shows_its_faces(first: Eye) -> None:
    page = first.page
    page.get_by_text("Methods side by side").click()
    first.write("arena-folder", str(ARENA))
    page.click("#arena-go")
    first.see(".plane .spot")
    point = page.locator(".plane .spot[data-point=closed-encoder]").first
    point.hover()
    assert "closed-encoder: forgotten" in page.locator(".spot-words").first.inner_text()
    point.press("Enter")
    first.see("#arena-result .compare")
    assert page.locator("#arena-result .pair").count() == 4
    assert first.faults == []


def test_a_request_is_added_and_applied_and_its_report_read_beside_another(
    first: Eye, studio: Running
) -> None:
    page, folder = first.page, studio.root / "release"
    config = ForgetConfig.preset(find_family("mini"), "gate-encoder").updated_from_pairs(
        [*QUICK_GATES, "evaluation.steps=10"]
    )
    create_release(folder, "mini", config=config)
    first.tab("Requests")
    first.write("requests-folder", str(folder))
    page.click("#requests-open")
    first.see("#requests-add")
    first.write("requests-person", "mini-0007")
    page.click("#requests-add")
    first.see("#requests-result .state.pending")
    assert "mini-0007" not in page.locator("#requests-result").inner_text()
    page.get_by_label("Quick").last.check()
    page.click("#requests-apply")
    first.see("#requests-result h3:has-text('The gate')")
    assert page.locator("#requests-result table").count() == 2
    assert open_release(folder).manifest.versions[0].measured == 1
    first.tab("Evidence")
    page.locator("#evidence-beside label:has-text('of the release')").click()
    beside = page.frame_locator("#evidence-second iframe.report")
    beside.locator("#verdict").wait_for()
    assert beside.locator(".answer").count() == 3
    assert first.faults == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_fits_and_can_be_read(
    first: Eye, studio: Running, chromium: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    state = first.page.context.storage_state()
    with Eye.of(chromium, studio.address, width, scheme, storage_state=state) as eye:
        eye.open()
        for tab, there in TABS.items():
            eye.tab(tab)
            eye.see(there)
            eye.looked_at(tmp_path, tab.lower(), width, scheme)
            if tab == "Evidence":
                eye.page.get_by_text("Methods side by side").click()
                eye.see(".plane .spot")
                eye.looked_at(tmp_path, "arena", width, scheme, "#arena-part")
        assert eye.faults == []


def test_axe_was_at_hand() -> None:
    needed()
    if not AXE.exists():
        pytest.skip(f"no axe-core at {AXE.name} (npm pack axe-core), so accessibility was not checked")
