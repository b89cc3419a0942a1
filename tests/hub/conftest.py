"""The repository that most of these tests read."""

import pytest

from tests.hub import LoopbackHub

REVISION = "0123456789abcdef0123456789abcdef01234567"
BIG = bytes(range(256)) * 4096
FILES = {"config.json": b"{}", "unet/weights.safetensors": BIG, "unet/config.json": b'{"a": 1}', "empty.txt": b""}
ID = "someone/base"


@pytest.fixture
def base(hub: LoopbackHub) -> LoopbackHub:
    hub.add_repository(ID, FILES, revision=REVISION)
    return hub
