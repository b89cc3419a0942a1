"""Starts the hub of a test session; to be imported before anything that imports huggingface_hub.

huggingface_hub reads its environment once, at import. From here on neither this process nor a subprocess of
it can reach the real Hub.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.hub.server import LoopbackHub

if "huggingface_hub" in sys.modules:
    raise ImportError(
        "huggingface_hub is imported already, so it points at the real Hub: import tests.hub.session first"
    )

HUB = LoopbackHub().start()
HOME = Path(tempfile.mkdtemp(prefix="loopback-hub-home-"))

# What the person at this machine has set must not decide a test: tokens, caches, offline mode.
for _name in [
    name
    for name in os.environ
    if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE", "DIFFUSERS_OFFLINE"))
]:
    del os.environ[_name]
os.environ.update(
    HF_ENDPOINT=HUB.url,
    HF_HOME=str(HOME),
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
)
# A proxy would be asked for 127.0.0.1 too.
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1"]))


@atexit.register
def _close() -> None:
    HUB.stop()
    shutil.rmtree(HOME, ignore_errors=True)
