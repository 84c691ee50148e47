"""The routes of `griffon-shards view`. Work is done in threads, so that the event loop only ever waits."""

import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import TASKS
from griffon_shards.view import web_images
from griffon_shards.view.errors import NotFoundError, TooSlowError
from griffon_shards.view.filters import PREDICTION_SORTS, SORTS, VERDICTS, Parameters, filters_of, page_of
from griffon_shards.view.marks import MAX_NOTE_CHARS
from griffon_shards.view.statistics import Statistics
from griffon_shards.view.viewed_set import ViewedSet
from griffon_shards.view.web_images import Thumbnails, WebImage

Result = TypeVar("Result")

_STATIC_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_QUERY_THREADS = 2
_IMAGE_THREADS = 2  # a thread decodes 120 MB at most
_MAX_BODY_BYTES = 4096
_STATUS: Mapping[type[Exception], int] = {
    SettingsError: 400,
    NotFoundError: 404,
    DataError: 422,
    OSError: 500,
    sqlite3.Error: 500,
    TooSlowError: 503,
}
"""The HTTP status of an error, whose message is the answer."""


def static_files() -> dict[str, tuple[bytes, str]]:
    """The page's files by name, with their media types. They are read once, so that no name of a URL is ever a path."""
    files = {}
    for entry in (resources.files("griffon_shards.view") / "static").iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in _STATIC_TYPES:
            files[entry.name] = entry.read_bytes(), _STATIC_TYPES[suffix]
    return files


def make_app(
    sets: Sequence[ViewedSet],
    thumbnails: Thumbnails,
    statistics: Sequence[Statistics],
    files: Mapping[str, tuple[bytes, str]],
) -> Starlette:
    """The application, without the checks of `access.Access`.

    Args:
        sets: the sets; the number of each is its place.
        thumbnails: a cache of small images.
        statistics: those of each set.
        files: of the page, by name.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        for item in statistics:
            await anyio.to_thread.run_sync(item.stop)

    views = _Views(sets, thumbnails, statistics, files)
    return Starlette(
        routes=[
            Route("/", views.index),
            Route("/static/{name}", views.static),
            Route("/api/sets", views.sets),
            Route("/api/categories", views.categories),
            Route("/api/samples", views.samples),
            Route("/api/samples/{set:int}/{row:int}", views.sample),
            Route("/api/statistics/{set:int}", views.statistics),
            Route("/api/rejects", views.rejects),
            Route("/api/marks", views.marks),
            Route("/api/marks/{set:int}/{row:int}", views.change_mark, methods=["PUT", "DELETE"]),
            Route("/image/{set:int}/{row:int}", views.image),
            Route("/thumbnail/{set:int}/{row:int}", views.thumbnail),
            Route("/crop/{set:int}/{row:int}", views.crop),
            Route("/reject-image/{set:int}/{number:int}", views.reject_image),
        ],
        exception_handlers={HTTPException: _http_error, **{kind: _known_error for kind in _STATUS}},
        lifespan=lifespan,
    )


class _Views:
    """The answers to requests."""

    def __init__(
        self,
        sets: Sequence[ViewedSet],
        thumbnails: Thumbnails,
        statistics: Sequence[Statistics],
        files: Mapping[str, tuple[bytes, str]],
    ) -> None:
        self._sets = sets
        self._thumbnails = thumbnails
        self._statistics = statistics
        self._files = files
        self._query_limit = anyio.CapacityLimiter(_QUERY_THREADS)
        self._image_limit = anyio.CapacityLimiter(_IMAGE_THREADS)

    async def index(self, _request: Request) -> Response:
        return self._file("index.html")

    async def static(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    async def sets(self, _request: Request) -> Response:
        summaries = await self._query(lambda: [item.summary() for item in self._sets])
        predictions = any(item["predictions"] for item in summaries)
        errors = [item["marks_error"] for item in summaries if item["marks_error"] is not None]
        return _json(
            {
                "sets": summaries,
                "tasks": TASKS,
                "sort": [*SORTS, *(PREDICTION_SORTS if predictions else ())],
                "predictions": predictions,
                "verdicts": VERDICTS,
                "rejects": [count for item in self._sets for count in item.reject_counts()],
                "marks_writable": not errors,
                "marks_error": errors[0] if errors else None,
            }
        )

    async def categories(self, request: Request) -> Response:
        parameters = Parameters(request.query_params.multi_items())
        chosen = self._set_of(parameters)
        filters = filters_of(parameters, predictions=chosen.predictions is not None)
        names, total = await self._query(lambda: chosen.categories(filters, parameters.one("prefix")))
        return _json({"categories": names, "total": total})

    async def samples(self, request: Request) -> Response:
        parameters = Parameters(request.query_params.multi_items())
        chosen = self._set_of(parameters)
        filters = filters_of(parameters, predictions=chosen.predictions is not None)
        offset, limit = page_of(parameters)
        total, cards = await self._query(lambda: chosen.cards(filters, offset, limit))
        return _json({"total": total, "samples": cards})

    async def sample(self, request: Request) -> Response:
        chosen, row = self._place(request)
        parameters = Parameters(request.query_params.multi_items())
        filters = filters_of(parameters, predictions=chosen.predictions is not None)
        return _json(await self._query(lambda: chosen.sample(row, filters)))

    async def statistics(self, request: Request) -> Response:
        number = self._set(request.path_params["set"]).number
        result = await self._query(self._statistics[number].json_or_progress)
        if isinstance(result, float):
            return _json({"progress": result}, status=202)
        return Response(result, media_type="application/json", headers=_NOT_STORED)

    async def rejects(self, request: Request) -> Response:
        parameters = Parameters(request.query_params.multi_items())
        chosen = self._set_of(parameters)
        offset, limit = page_of(parameters)
        reason, source = parameters.one("reason"), parameters.one("source")
        total, rejects = await self._query(lambda: chosen.rejects.page(reason, source, offset, limit))
        return _json({"total": total, "rejects": rejects})

    async def marks(self, _request: Request) -> Response:
        return _json(await self._query(lambda: [mark for item in self._sets for mark in item.marked()]))

    async def change_mark(self, request: Request) -> Response:
        chosen, row = self._place(request)
        key = chosen.frozen.key(row)
        if request.method == "DELETE":
            await self._query(lambda: chosen.marks.delete(key))
        else:
            note = await _note(request)
            await self._query(lambda: chosen.marks.put(key, note))
        return _json({"key": key})

    async def image(self, request: Request) -> Response:
        chosen, row = self._place(request)
        return await self._encoded(request, chosen, f"image-{row}", lambda: web_images.for_browser(_image(chosen, row)))

    async def thumbnail(self, request: Request) -> Response:
        chosen, row = self._place(request)
        return await self._encoded(
            request, chosen, f"thumbnail-{row}", lambda: self._thumbnails.of_row(chosen.frozen, row)
        )

    async def crop(self, request: Request) -> Response:
        chosen, row = self._place(request)
        variant = Parameters(request.query_params.multi_items()).integer("variant", 0)
        return await self._encoded(
            request, chosen, f"crop-{row}-{variant}", lambda: web_images.crop(chosen.frozen[row], variant)
        )

    async def reject_image(self, request: Request) -> Response:
        chosen = self._set(request.path_params["set"])
        number = request.path_params["number"]
        return await self._encoded(request, chosen, "", lambda: web_images.for_browser(chosen.rejects.image(number)))

    async def _encoded(self, request: Request, chosen: ViewedSet, name: str, make: Callable[[], WebImage]) -> Response:
        """An image. A browser that has it already asks with its tag, and gets 304."""
        tag = f'"{chosen.frozen.lock.digest[:32]}-{name}"'
        headers = {"cache-control": "private, no-cache", "etag": tag} if name else _NOT_STORED
        if name and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        data, media_type = await anyio.to_thread.run_sync(make, limiter=self._image_limit)
        return Response(data, media_type=media_type, headers=headers)

    def _query(self, work: Callable[[], Result]) -> Awaitable[Result]:
        return anyio.to_thread.run_sync(work, limiter=self._query_limit)

    def _file(self, name: str) -> Response:
        if name not in self._files:
            raise HTTPException(404, "no such file")
        data, media_type = self._files[name]
        return Response(data, headers={"content-type": media_type, "cache-control": "no-cache"})

    def _set_of(self, parameters: Parameters) -> ViewedSet:
        return self._set(parameters.integer("set", 0))

    def _set(self, number: int) -> ViewedSet:
        if number >= len(self._sets):
            raise NotFoundError(f"there is no set {number}; sets are numbered from 0 to {len(self._sets) - 1}")
        return self._sets[number]

    def _place(self, request: Request) -> tuple[ViewedSet, int]:
        chosen, row = self._set(request.path_params["set"]), request.path_params["row"]
        chosen.check(row)
        return chosen, row


_NOT_STORED = {"cache-control": "no-store"}


def _json(value: object, status: int = 200) -> Response:
    try:
        body = orjson.dumps(value)
    except orjson.JSONEncodeError:  # a path of this machine that is not UTF-8
        body = json.dumps(value).encode()
    return Response(body, status, media_type="application/json", headers=_NOT_STORED)


def _image(chosen: ViewedSet, row: int) -> bytes:
    sample = chosen.frozen[row]
    if sample.image is None:
        raise DataError(f"{sample.key}: has no image")
    return sample.image


async def _note(request: Request) -> str:
    """The note in a body of JSON."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "expected the content type application/json")
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BODY_BYTES:
                raise HTTPException(413, f"a note of more than {_MAX_BODY_BYTES} bytes")
    except ClientDisconnect:  # nobody reads this answer
        raise HTTPException(400, "the body is incomplete") from None
    try:
        fields: Any = orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        raise HTTPException(400, "the body is not JSON") from None
    note = fields.get("note") if isinstance(fields, dict) else None
    if not isinstance(note, str) or len(note) > MAX_NOTE_CHARS:
        raise HTTPException(400, f"expected a note of at most {MAX_NOTE_CHARS} characters")
    return note


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)


async def _known_error(_request: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    text = "the search took too long; ask for fewer samples" if isinstance(error, TooSlowError) else str(error)
    return _json({"error": text}, status)
