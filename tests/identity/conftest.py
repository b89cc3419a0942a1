"""What several tests of faces need."""

import pytest


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Insightface fetches what it misses; here it must never come to that."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("insightface wants to download something")

    monkeypatch.setattr("insightface.utils.storage.download_file", refuse)
