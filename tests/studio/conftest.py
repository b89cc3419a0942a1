"""One studio and one browser for all tests that look at it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.studio.browser import BROWSER, Eye, Running, needed, running


@pytest.fixture(scope="package")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    needed()
    with running(tmp_path_factory.mktemp("studio")) as server:
        yield server


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    needed()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(BROWSER), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def first(studio: Running, chromium: Any) -> Iterator[Eye]:
    """The browser that does everything, once."""
    with Eye.of(chromium, studio.address) as eye:
        yield eye
