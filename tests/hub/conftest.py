"""The repository that most of these tests read."""

import pytest

from tests.hub import LoopbackHub
from tests.hub.repository import FILES, ID, REVISION


@pytest.fixture
def base(hub: LoopbackHub) -> LoopbackHub:
    hub.add_repository(ID, FILES, revision=REVISION)
    return hub
