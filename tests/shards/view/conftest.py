"""Sets as `griffon-shards view` opens them, asked through the complete application."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from griffon_shards.view.access import Access
from griffon_shards.view.server import make_app, static_files
from griffon_shards.view.serving import open_sets
from griffon_shards.view.statistics import Statistics
from griffon_shards.view.viewed_set import ViewedSet
from griffon_shards.view.web_images import Thumbnails

ORIGIN = "http://127.0.0.1:8765"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An application that shows sets, and a browser of it."""

    sets: list[ViewedSet]
    client: TestClient

    def get(self, path: str, **parameters: object) -> Any:  # noqa: ANN401 - any JSON
        """The JSON of an answer, which has to be a good one."""
        answer = self.client.get(path, params=parameters)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        return answer.json()

    def rows(self, **parameters: object) -> list[int]:
        """All rows of a choice of samples, in its order, page by page; the total has to agree."""
        rows: list[int] = []
        while True:
            page = self.get("/api/samples", **parameters, offset=len(rows), limit=150)
            rows += [card["row"] for card in page["samples"]]
            if not page["samples"]:
                assert page["total"] == len(rows)
                return rows

    def error(self, path: str, **parameters: object) -> tuple[int, str]:
        """Status and message of an answer that refuses."""
        answer = self.client.get(path, params=parameters)  # type: ignore[arg-type]
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["error"]


@pytest.fixture(scope="session")
def open_view(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., View]:
    """Opens sets as the command does, with its options. Marks go to a new folder unless they are given."""

    def open_them(
        *roots: Path,
        data_root: Path | None = None,
        predictions: Path | None = None,
        marks: Path | None = None,
        cache: Path | None = None,
        host: str = "127.0.0.1",
        token: str | None = None,
    ) -> View:
        cache = cache or tmp_path_factory.mktemp("cache")
        if marks is None and len(roots) == 1:
            marks = tmp_path_factory.mktemp("marks") / "set.marks.jsonl"
        sets = open_sets(roots, data_root=data_root, predictions=predictions, marks=marks, cache=cache)
        statistics = [Statistics(item.frozen, cache) for item in sets]
        app = make_app(sets, Thumbnails(cache / "thumbnails.sqlite", 1 << 20), statistics, static_files())
        guarded = Access(app, host=host, token=token, cookie="griffon-view-8765")
        return View(sets=sets, client=TestClient(guarded, base_url=ORIGIN, follow_redirects=False))

    return open_them


@pytest.fixture(scope="session")
def view(frozen_set: Path, demo_data: Path, open_view: Callable[..., View]) -> View:
    """The frozen sample data, as no test changes it."""
    return open_view(frozen_set, data_root=demo_data)
