"""The studio as a Space of the Hugging Face Hub: the embedded base, open to everybody, nothing kept."""

import os

from piu_lora.studio.server import StudioSettings, serve

port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
serve(StudioSettings(host="0.0.0.0", port=port, space=True), lambda address: print(address, flush=True))
