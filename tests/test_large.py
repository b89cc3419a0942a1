"""Files and lists of a size that nobody expects: read in bounded time and memory, or refused at once."""

import io
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from piu_lora.adapter import BaseRef, Change, Factors, Receipt, write_adapter
from piu_lora.adapter.inspect import describe_lora
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.identity.embedding_files import read_embeddings
from piu_lora.identity.pictures import UnusablePhoto, read_picture
from piu_lora.jobs.evaluation.verify import verify_adapter
from piu_lora.jobs.request.request import open_request
from piu_lora.jobs.stacks.check import check_stack
from piu_lora.jobs.stacks.members import open_members
from piu_lora.model import attention_digest
from piu_lora.tensors import save_tensors
from tests.adapter.stacks import layers
from tests.kills import FORK
from tests.tiny import tiny_bank, tiny_pipeline

MB = 1_000_000


def costs(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives or how it is refused, its seconds, and megabytes above what the process had before."""
    receive, send = FORK.Pipe(duplex=False)

    def run() -> None:
        torch.set_num_threads(1)
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            answer = work()
        except BadInput as error:
            answer = f"refused: {error}"
        used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / MB
        send.send((answer, time.perf_counter() - begun, used))

    process = FORK.Process(target=run)
    process.start()
    send.close()
    answer, seconds, used = receive.recv()
    process.join()
    sys.stdout.write(f"{seconds:.2f} s, {used:.0f} MB\n")
    return answer, seconds, used


# Adapters of 300 MB


def random_half(*shape: int) -> torch.Tensor:
    """Cheap: a thousand numbers, over and over."""
    drawn = (0.01 * torch.randn(1009, generator=torch.Generator().manual_seed(0))).half()
    count = int(np.prod(shape))
    return drawn.repeat(count // 1009 + 1)[:count].reshape(shape)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of the tiny base whose rank is hundreds of times what its layers could need."""
    torch.set_num_threads(1)
    pipe = tiny_pipeline()
    shapes = layers(pipe, encoder=False)
    rank = 160_000_000 // (2 * sum(map(sum, shapes.values())))
    ref = BaseRef("tiny", "tiny", attention_digest(pipe.unet))
    folders = []
    for number in range(2):
        folder = tmp_path_factory.mktemp("large") / "adapter"
        folder.mkdir()
        change: Change = {
            module: Factors(random_half(rank, into), (number + 1) * random_half(out, rank) / rank**0.5)
            for module, (out, into) in shapes.items()
        }
        write_adapter(folder, change, Receipt(ref, "piu", {"seed": 0}, adapter_id=f"{number:016x}"))
        assert sum(path.stat().st_size for path in folder.rglob("*")) > 300 * MB
        folders.append(folder)
    return folders


@pytest.mark.slow
def test_a_lora_of_other_programs(tmp_path: Path) -> None:
    """320 MB in the shapes of Stable Diffusion's attention at rank 128."""
    state = {}
    for number in range(220):
        name = f"unet.up_blocks.{number % 4}.attentions.{number}.attn2.to_k"
        state[f"{name}.lora_A.weight"] = random_half(256, 1280)
        state[f"{name}.lora_B.weight"] = random_half(1280, 256)
    path = tmp_path / "foreign.safetensors"
    save_tensors(state, path, {"format": "pt"})
    del state
    assert path.stat().st_size > 280 * MB
    facts, seconds, used = costs(lambda: describe_lora(path))
    assert (facts["layers"], facts["ranks"]) == (220, {256: 220})
    assert seconds < 30
    assert used < 3 * path.stat().st_size / MB


@pytest.mark.slow
def test_inspect_and_verify(large: list[Path]) -> None:
    facts, seconds, used = costs(lambda: describe_lora(large[0]))
    assert facts["receipt"] is not None
    assert seconds < 20
    assert used < 1_000
    verdict, seconds, used = costs(lambda: verify_adapter(large[0], tiny_pipeline()).checks)
    assert not [check for check in verdict if check.differs], verdict
    assert seconds < 30
    assert used < 2_500


@pytest.mark.slow
def test_stack_check(large: list[Path]) -> None:
    report, seconds, used = costs(
        lambda: check_stack(open_members(large), tiny_pipeline(), tiny_bank(), people=8).facts()
    )
    assert len(report["stacks"]) == 3
    assert seconds < 60
    assert used < 4_000


# Pictures and arrays


def huge_png(path: Path, side: int) -> None:
    """A white picture of two colours, which takes some kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    packer, row = zlib.compressobj(1), b"\0" + b"\xff" * (side // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def test_a_picture_of_four_hundred_megapixels(tmp_path: Path) -> None:
    huge_png(tmp_path / "huge.png", 20_000)
    begun = time.process_time()
    with pytest.raises(UnusablePhoto, match="more pixels than can be opened safely"):
        read_picture(tmp_path / "huge.png")
    assert time.process_time() - begun < 1


@pytest.mark.slow
def test_the_largest_picture_that_is_read(tmp_path: Path) -> None:
    huge_png(tmp_path / "large.png", 13_000)
    shape, seconds, used = costs(lambda: read_picture(tmp_path / "large.png").shape)
    assert shape == (4096, 4096, 3)
    assert seconds < 20
    assert used < 1_500


def sparse_npy(path: Path, shape: tuple[int, int], kind: str = "<f4") -> None:
    """A header, and gigabytes of nothing."""
    buffer = io.BytesIO()
    facts = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, facts)  # type: ignore[no-untyped-call]
    with path.open("wb") as file:
        file.write(buffer.getvalue())
        file.truncate(len(buffer.getvalue()) + int(np.prod(shape)) * int(kind[-1]))


@pytest.mark.parametrize(
    ("shape", "kind", "problem"),
    [
        ((4_000_000, 128), "<f4", "holds 4,000,000 embeddings, and those of one person are at most 100,000"),
        ((128, 4_000_000), "<f4", r"expected \(n, 128\), one embedding a row; transpose it"),
        ((1_000_000, 512), "<f4", r"shape \(1000000, 512\); expected \(n, 128\)"),
        ((2_000_000, 128), "<i8", "holds int64, and embeddings are real numbers"),
    ],
)
def test_an_array_of_two_gigabytes(tmp_path: Path, shape: tuple[int, int], kind: str, problem: str) -> None:
    sparse_npy(tmp_path / "huge.npy", shape, kind)
    assert (tmp_path / "huge.npy").stat().st_size > 2_000 * MB
    begun = time.process_time()
    with pytest.raises(BadInput, match=problem):
        read_embeddings(tmp_path / "huge.npy", 128)
    assert time.process_time() - begun < 0.5


def test_an_archive_that_unfolds_to_gigabytes(tmp_path: Path) -> None:
    """A few kilobytes of a .npz say that they are two gigabytes of zeros."""
    buffer = io.BytesIO()
    facts = {"descr": "<f4", "fortran_order": False, "shape": (600_000, 128)}
    np.lib.format.write_array_header_1_0(buffer, facts)  # type: ignore[no-untyped-call]
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("embeddings.npy", "w", force_zip64=True) as member,
    ):
        member.write(buffer.getvalue())
        for _ in range(300):
            member.write(bytes(1024 * 1024))
    with pytest.raises(BadInput, match="unfolds to 314,572,928 bytes"):
        read_embeddings(tmp_path / "bomb.npz", 128)


# Lists and banks


def large_bank(identities: int, width: int = 16) -> IdentityBank:
    rows = normalize(torch.randn(identities, width, generator=torch.Generator().manual_seed(0))).half()
    labels = torch.arange(identities, dtype=torch.int32)
    return IdentityBank(
        rows, labels, [f"p{row}" for row in range(identities)], RecognizerId("tiny", "00" * 32)
    )


@pytest.mark.parametrize(("last", "problem"), [("p7", "somebody is named twice"), ("p7000000", "'p7000000'")])
@pytest.mark.slow
def test_a_list_of_a_hundred_thousand(tmp_path: Path, last: str, problem: str) -> None:
    """Somebody twice and somebody unknown at its very end are found before any work is done."""
    (tmp_path / "list.txt").write_text("".join(f"p{row}\n" for row in range(100_000)) + last + "\n")
    bank, config = large_bank(120_000), ForgetConfig().updated({"anchor": {"rule": "nearest"}})
    answer, seconds, used = costs(lambda: open_request(tmp_path / "list.txt", bank, config, None))
    assert str(answer).startswith("refused: ")
    assert problem in answer
    assert seconds < 30
    assert used < 1_000


@pytest.mark.slow
def test_five_thousand_people_in_one_request(tmp_path: Path) -> None:
    """Everybody is split, compared with the whole bank and given an anchor, at a cost that
    hardly grows with the number of people.
    """
    (tmp_path / "list.txt").write_text("".join(f"p{row}\n" for row in range(5_000)))
    bank, config = large_bank(6_000), ForgetConfig().updated({"anchor": {"rule": "nearest"}})

    def work() -> list[float]:
        begun = time.process_time()
        request = open_request(tmp_path / "list.txt", bank, config, None)
        return [len(request.people), time.process_time() - begun]

    (people, seconds), _, used = costs(work)
    assert people == 5_000
    assert seconds < 30  # of the processor
    assert used < 1_000


@pytest.mark.slow
def test_a_request_against_a_bank_of_a_million(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    large_bank(1_000_000).save(path)
    config = ForgetConfig().updated({"anchor": {"rule": "nearest"}})

    def work() -> list[float]:
        begun = time.process_time()
        request = open_request("p7", IdentityBank.load(path), config, None)
        return [len(request.retained.train) + len(request.retained.held_out), time.process_time() - begun]

    (others, seconds), _, used = costs(work)
    assert others > 900_000
    assert seconds < 40  # of the processor
    assert used < 2_000
