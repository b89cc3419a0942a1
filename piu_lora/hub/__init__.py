"""The Hugging Face Hub: the only folder that talks to it, and where its errors become ours."""

from piu_lora.hub.cache import cached_file, forget_file, token_present
from piu_lora.hub.download import HubFiles
from piu_lora.hub.upload import Uploaded, tag_commit, upload_files

__all__ = [
    "HubFiles",
    "Uploaded",
    "cached_file",
    "forget_file",
    "tag_commit",
    "token_present",
    "upload_files",
]
