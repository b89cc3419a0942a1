"""Where the five parts of a base lie: the layout of diffusers, or that of a family's own repository."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from piu_lora.errors import BadInput
from piu_lora.foreign import is_plain, read_text, require_regular
from piu_lora.hub import HubFiles
from piu_lora.model.family import FAMILIES, BaseFamily
from piu_lora.model.files import Files, LocalFiles
from piu_lora.tensors import pointer_advice

__all__ = ["DIFFUSION", "PARTS", "Layout", "Part", "is_folder", "load_options", "locate", "split_revision"]


_SINGLE = (".safetensors", ".ckpt", ".pt", ".bin")


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


def _forms(safetensors: str, pickle: str) -> tuple[str, ...]:
    """How the weights of a model may lie in its folder: whole or in shards, in full precision first."""
    return (
        f"{safetensors}.safetensors",
        f"{safetensors}.safetensors.index.json",
        f"{pickle}.bin",
        f"{pickle}.bin.index.json",
        f"{safetensors}.fp16.safetensors",
        f"{safetensors}.safetensors.index.fp16.json",
    )


DIFFUSION = _forms("diffusion_pytorch_model", "diffusion_pytorch_model")
PARTS: dict[str, Part] = {
    "unet": Part(content=DIFFUSION),
    "text_encoder": Part(content=_forms("model", "pytorch_model")),
    "vae": Part(content=DIFFUSION),
    "tokenizer": Part(
        required=("tokenizer_config.json",),
        content=("tokenizer.json", "vocab.json"),
        companions={"vocab.json": ("merges.txt", "special_tokens_map.json")},
    ),
    "scheduler": Part(required=("scheduler_config.json",)),
}


@dataclass(frozen=True)
class Layout:
    """Where every part is, what the whole is called, and its family where the layout tells it."""

    id: str
    places: Mapping[str, tuple[Files, str]]
    family: BaseFamily | None = None

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
        folder = paths[0].parent
        # The libraries open whatever has the right name.
        for path in folder.iterdir():
            if not path.is_dir():
                require_regular(path)
        return folder


def _content(files: Files, subfolder: str, spec: Part) -> None:
    path = files.get(*(f"{subfolder}/{name}" for name in spec.content))
    shards = (
        set(re.findall(r'"([^"]+\.(?:safetensors|bin))"', read_text(path)))
        if ".index." in path.name
        else set()
    )
    if foreign := sorted(name for name in shards if not is_plain(name)):
        raise BadInput(
            f"{str(path)!r} names {foreign[0][:80]!r}, which is no file beside it; pass another base"
        )
    for companion in (*spec.companions.get(path.name, ()), *sorted(shards)):
        files.get(f"{subfolder}/{companion}")


def load_options(part: str, folder: Path) -> dict[str, object]:
    """What from_pretrained has to be told of the form in which a part's weights lie."""
    form = next((name for name in PARTS[part].content if (folder / name).is_file()), "")
    if ".fp16." in form:
        return {"variant": "fp16"}
    return {"use_safetensors": False} if form.endswith(".bin.index.json") else {}


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder; a name too long for the file system is none."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def split_revision(base: str) -> tuple[str, str | None]:
    """``name@revision`` as (name, revision); without ``@`` the revision is None."""
    name, separator, revision = base.partition("@")
    return name, (revision or None) if separator else None


def locate(base: str, revision: str | None, parts_revision: str | None, **hub: object) -> Layout:
    """Find the parts of a base.

    Args:
        base: the name of a family whose weights are somewhere, a folder or a Hub id.
        revision: of the base's repository.
        parts_revision: of the repository that lends a family the other parts.
        hub: cache_dir, local_files_only, token.

    Raises:
        BadInput: no such folder, or it holds no base.
        EnvironmentProblem: the Hub cannot be asked.
    """
    family = FAMILIES.get(base)
    if family is not None and family.folder is not None:
        return _diffusers("local", LocalFiles(family.folder()), family)
    if family is not None and family.source is not None:
        repository, pinned = family.source.repository, revision or family.source.revision
        return _published(repository, HubFiles(repository, pinned, **hub), family, parts_revision, hub)  # type: ignore[arg-type]
    name, files = _place(base, revision, hub)
    if files.find("model_index.json"):
        return _diffusers(name, files, None)
    layouts = [family for family in FAMILIES.values() if family.source is not None]
    for family in layouts:
        if family.source is not None and files.find(family.source.marker):
            return _published(name, files, family, parts_revision, hub)
    if isinstance(files, LocalFiles) and (inner := sorted(files.folder.glob("*/model_index.json"))):
        raise BadInput(f"{base!r} holds no base itself, but a folder with one; pass {str(inner[0].parent)!r}")
    markers = [f"{family.source.marker} ({family.label})" for family in layouts if family.source is not None]
    lacking = " nor ".join(["model_index.json (diffusers)", *markers])
    raise BadInput(f"{base!r} holds neither {lacking}; {_choices()}")


def _place(base: str, revision: str | None, hub: Mapping[str, object]) -> tuple[str, Files]:
    """A folder or a Hub repository, and what may be written down of its name."""
    folder = Path(base).expanduser()
    if is_folder(folder):
        if revision is not None:
            raise BadInput(
                f"base = {base!r} is a folder, and a folder has no revision {revision!r}; leave it out"
            )
        return "local", LocalFiles(folder)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not base.startswith("."):
        return base, HubFiles(base, revision, **hub)  # type: ignore[arg-type]
    if folder.suffix.lower() in _SINGLE and _is_file(folder):
        raise BadInput(
            pointer_advice(folder)
            or f"{base!r} is a single file; make a folder of it once, in Python: "
            f"StableDiffusionPipeline.from_single_file({base!r}).save_pretrained('FOLDER'), "
            "and pass that folder"
        )
    raise BadInput(f"there is no base {base[:200]!r}: no folder of that name; {_choices()}")


def _diffusers(name: str, files: Files, family: BaseFamily | None) -> Layout:
    return Layout(name, {part: (files, part) for part in PARTS}, family)


def _published(
    name: str, files: Files, family: BaseFamily, parts_revision: str | None, hub: Mapping[str, object]
) -> Layout:
    """The layout of a family's own repository, with the parts that another one lends."""
    assert family.source is not None
    folders, (lender, pinned) = family.source.folders, family.source.parts
    lent: Files = HubFiles(lender, parts_revision or pinned, **hub)  # type: ignore[arg-type]
    places = {part: (files, folders[part]) if part in folders else (lent, part) for part in PARTS}
    return Layout(name, places, family)


def _choices() -> str:
    """What may be passed as a base, for messages."""
    families = sorted(FAMILIES.values(), key=lambda family: family.folder is None)
    names = [family.name for family in families if family.folder is not None or family.source is not None]
    layouts = " or of ".join(
        ["diffusers", *(family.label for family in families if family.source is not None)]
    )
    return f"pass {', '.join(names)}, a folder in the layout of {layouts}, or a Hub id"
