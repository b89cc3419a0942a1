"""The loopback hub itself."""

import urllib.error
import urllib.request

import pytest
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from tests.hub import LoopbackHub
from tests.hub.repository import BIG, FILES, ID


def test_ranges(base: LoopbackHub) -> None:
    expected = {
        "bytes=0-9": BIG[:10],
        "bytes=10-": BIG[10:],
        "bytes=-7": BIG[-7:],
        "bytes=5-99999999": BIG[5:],
    }
    for header, data in expected.items():
        request = urllib.request.Request(
            f"{base.url}/{ID}/resolve/main/unet/weights.safetensors", headers={"Range": header}
        )
        with urllib.request.urlopen(request) as response:
            assert (response.status, response.read()) == (206, data)
    beyond = urllib.request.Request(
        f"{base.url}/{ID}/resolve/main/config.json", headers={"Range": "bytes=2-"}
    )
    with pytest.raises(urllib.error.HTTPError, match="416"):
        urllib.request.urlopen(beyond)


def test_a_second_hub_beside_the_first_and_gone(hub: LoopbackHub, naps: list[float]) -> None:
    with LoopbackHub() as other:
        other.add_repository(ID, FILES)
        assert hf_hub_download(ID, "config.json", endpoint=other.url)
    assert hub.requests == []
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download(ID, "unet/config.json", endpoint=other.url)
    assert hf_hub_download(ID, "config.json", endpoint=other.url)
    assert len(naps) == 5
