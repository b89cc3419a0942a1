"""Where the five parts of a base lie: the layout of diffusers, or that of Arc2Face's own repository."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from piu_lora.errors import BadInput
from piu_lora.model.hub import Files, HubFiles, LocalFiles

__all__ = ["ARC2FACE", "PARTS", "SD15", "Layout", "Part", "is_folder", "locate", "split_revision"]

# Repository and pinned revision of the published weights.
ARC2FACE = ("FoivosPar/Arc2Face", "321709b2e9697ea2a5bd06c8a51b340592333e1e")
SD15 = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14")
_CHOICES = "pass mini, arc2face, a folder in the layout of diffusers or of Arc2Face, or a Hub id"


@dataclass(frozen=True)
class Part:
    """The files of one part of a pipeline.

    Attributes:
        required: must be there.
        content: the one file that holds the content, in the forms it may have, best first: safetensors before
            pickles.
        companions: what must lie beside a form.
    """

    required: tuple[str, ...] = ("config.json",)
    content: tuple[str, ...] = ()
    companions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_DIFFUSION = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
)
PARTS: dict[str, Part] = {
    "unet": Part(content=_DIFFUSION),
    "text_encoder": Part(content=("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")),
    "vae": Part(content=_DIFFUSION),
    "tokenizer": Part(
        required=("tokenizer_config.json",),
        content=("tokenizer.json", "vocab.json"),
        companions={"vocab.json": ("merges.txt", "special_tokens_map.json")},
    ),
    "scheduler": Part(required=("scheduler_config.json",)),
}


@dataclass(frozen=True)
class Layout:
    """Place and subfolder of every part, and what the whole is called."""

    id: str
    places: Mapping[str, tuple[Files, str]]

    @property
    def main(self) -> Files:
        """The place of the UNet, which names the base."""
        return self.places["unet"][0]

    def fetch(self, part: str) -> Path:
        """The local folder that holds a part, with all its files in it.

        Raises:
            BadInput, EnvironmentProblem: a file is missing or cannot be had.
        """
        files, subfolder = self.places[part]
        spec = PARTS[part]
        paths = [files.get(f"{subfolder}/{name}") for name in spec.required]
        if spec.content:
            _content(files, subfolder, spec)
        return paths[0].parent


def _content(files: Files, subfolder: str, spec: Part) -> None:
    path = files.get(*(f"{subfolder}/{name}" for name in spec.content))
    shards = (
        set(re.findall(r'"([^"]+\.safetensors)"', path.read_text()))
        if path.name.endswith(".index.json")
        else set()
    )
    for companion in (*spec.companions.get(path.name, ()), *sorted(shards)):
        files.get(f"{subfolder}/{companion}")


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder; a name too long for the file system is none."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def split_revision(base: str) -> tuple[str, str | None]:
    """``name@revision`` as (name, revision); without ``@`` the revision is None."""
    name, separator, revision = base.partition("@")
    return name, (revision or None) if separator else None


def locate(base: str, revision: str | None, parts_revision: str | None, **hub: object) -> Layout:
    """Find the parts of a base that is not the embedded one.

    Args:
        base: ``arc2face``, a folder or a Hub id.
        revision: of the base's repository.
        parts_revision: of the Stable Diffusion 1.5 repository that lends Arc2Face tokenizer, VAE and
            scheduler.
        hub: cache_dir, local_files_only, token.

    Raises:
        BadInput: no such folder, or it holds no base.
        EnvironmentProblem: the Hub cannot be asked.
    """
    rest = HubFiles(SD15[0], parts_revision or SD15[1], **hub)  # type: ignore[arg-type]
    if base == "arc2face":
        return _arc2face(ARC2FACE[0], HubFiles(ARC2FACE[0], revision or ARC2FACE[1], **hub), rest)  # type: ignore[arg-type]
    files: Files
    folder = Path(base).expanduser()
    if is_folder(folder):
        if revision is not None:
            raise BadInput(
                f"base = {base!r} is a folder, and a folder has no revision {revision!r}; leave it out"
            )
        files, name = LocalFiles(folder), "local"
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not base.startswith("."):
        files, name = HubFiles(base, revision, **hub), base  # type: ignore[arg-type]
    else:
        raise BadInput(f"there is no base {base[:200]!r}: no folder of that name; {_CHOICES}")
    if files.find("model_index.json"):
        return Layout(name, {part: (files, part) for part in PARTS})
    if files.find("arc2face/config.json"):
        return _arc2face(name, files, rest)
    raise BadInput(
        f"{base!r} holds neither model_index.json (diffusers) nor arc2face/config.json (Arc2Face); {_CHOICES}"
    )


def _arc2face(name: str, files: Files, rest: Files) -> Layout:
    own = {"unet": (files, "arc2face"), "text_encoder": (files, "encoder")}
    return Layout(name, own | {part: (rest, part) for part in ("tokenizer", "vae", "scheduler")})
