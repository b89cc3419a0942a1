"""What the page fetches beside Gradio's own: faces, photographs that are sent, folders to take along."""

import io
import shutil
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response

from piu_lora.studio.bench import Bench
from piu_lora.studio.pages.base import COOKIE
from piu_lora.studio.uploads import keep
from piu_lora.studio.visitors import Visitor, Visitors

__all__ = ["Routes"]


class Routes:
    """The routes under ``/studio``; each answers only the browser that a thing belongs to."""

    def __init__(self, bench: Bench, visitors: Visitors) -> None:
        self._bench, self._visitors = bench, visitors
        self.router = APIRouter(prefix="/studio")
        self.router.get("/static/studio.js")(script)
        self.router.get("/face/{row}.webp")(self.face)
        self.router.post("/photographs")(self.photographs)
        self.router.delete("/photographs")(self.no_photographs)
        self.router.get("/download/{key}.zip")(self.download)
        self.router.get("/report/{key}")(self.report)

    def _visitor(self, request: Request) -> Visitor:
        visitor = self._visitors.known(request.cookies.get(COOKIE))
        if visitor is None:
            raise HTTPException(404)
        return visitor

    def face(self, row: int, request: Request) -> Response:
        """A portrait of somebody of the bank."""
        self._visitor(request)
        if not self._bench.ready.is_set() or not 0 <= row < len(self._bench.people):
            raise HTTPException(404)
        picture = self._bench.face(row)
        return Response(picture or _NOBODY, media_type="image/webp" if picture else "image/svg+xml")

    def photographs(self, request: Request, photographs: Annotated[list[UploadFile], File()]) -> JSONResponse:
        """Photographs that are sent."""
        return JSONResponse(keep(self._visitor(request), photographs))

    def no_photographs(self, request: Request) -> JSONResponse:
        """All photographs that were sent go."""
        visitor = self._visitor(request)
        shutil.rmtree(visitor.folder / "photographs", ignore_errors=True)
        visitor.photographs.clear()
        return JSONResponse({"words": "all photographs removed", "refused": [], "kept": 0})

    def download(self, key: str, request: Request) -> Response:
        """What a job has made, as one file."""
        folder, name = self._visitor(request).downloads.get(key, (None, ""))
        if folder is None:
            raise HTTPException(404)
        headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
        return Response(_zipped(folder, name), media_type="application/zip", headers=headers)

    def report(self, key: str, request: Request) -> Response:
        """The page of a report."""
        _, path = self._visitor(request).reports.get(key, ("", None))
        if path is None or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, media_type="text/html")


def script() -> Response:
    """The page's own script."""
    text = files("piu_lora.studio").joinpath("static", "studio.js").read_text(encoding="utf-8")
    return Response(text, media_type="text/javascript")


_NOBODY = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><rect width="72" height="72" '
    b'fill="#8d95a3"/><circle cx="36" cy="28" r="13" fill="#fff"/><path d="M10 72c2-18 14-24 26-24s24 6 '
    b'26 24z" fill="#fff"/></svg>'
)


def _zipped(folder: Path, name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{name}/{path.relative_to(folder)}")
    return buffer.getvalue()
