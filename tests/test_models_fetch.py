"""Downloads from a server that drops connections, changes its mind and lies."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from models.datasets import fetch as module
from models.datasets.base import Download
from models.datasets.fetch import fetch
from models.datasets.own import OwnRecordings
from quantization.errors import DatasetError


def make_zip(seed: int, size: int = 900_000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.bin", np.random.default_rng(seed).bytes(size))
    return buffer.getvalue()


@dataclass
class Behaviour:
    body: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    length: bool = True
    drops: list[int] = field(default_factory=list)
    """Bytes after which each of the first responses breaks off."""
    failures: list[int] = field(default_factory=list)
    """Status codes of the first responses."""
    wrong_start: bool = False
    requests: list[dict[str, str]] = field(default_factory=list)
    zenodo: bytes | None = None


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def log_message(self, *_):
        pass

    def do_GET(self):
        b = self.behaviour
        b.requests.append(dict(self.headers))
        if b.failures:
            self.send_error(b.failures.pop(0))
            return
        if self.path == "/record":
            self.answer(200, b.zenodo or b"", {})
            return
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, b.etag)
        headers = {} if b.etag is None else {"ETag": b.etag}
        if not (b.ranges and asked and same):
            self.answer(200, b.body, headers)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(b.body):
            self.answer(416, b"", headers | {"Content-Range": f"bytes */{len(b.body)}"})
            return
        start += b.wrong_start
        headers["Content-Range"] = f"bytes {start}-{len(b.body) - 1}/{len(b.body)}"
        self.answer(206, b.body[start:], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str]):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.behaviour.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.behaviour.drops.pop(0)] if self.behaviour.drops and body else body)
        self.close_connection = True


@pytest.fixture
def server():
    """Yields ``start(behaviour) -> base address``."""
    running = []

    def start(behaviour: Behaviour) -> str:
        handler = type("Bound", (Handler,), {"behaviour": behaviour})
        httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((httpd, thread))
        return f"http://127.0.0.1:{httpd.server_port}"

    yield start
    for httpd, thread in running:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    slept = []
    monkeypatch.setattr(module, "_pause", slept.append)
    return slept


BODY = make_zip(1)
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


def dataset(base: str, **fields) -> OwnRecordings:
    """Any data set will do; only its ``files`` count here."""
    return replace(OwnRecordings(), name="test", files=(Download(f"{base}/data.zip", "data.zip", **fields),))


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_plain_download_and_progress(server, tmp_path):
    seen = []
    behaviour = Behaviour(BODY)
    path = fetch(
        dataset(server(behaviour), size=len(BODY), md5=MD5), tmp_path / "new", progress=lambda *p: seen.append(p)
    )
    assert path.read_bytes() == BODY
    assert leftovers(tmp_path / "new") == ["data.zip"]
    assert seen[-1] == (len(BODY), len(BODY))
    assert [have for have, _ in seen] == sorted(have for have, _ in seen)
    assert "Range" not in behaviour.requests[0]


def test_present_file_is_not_downloaded_again(server, tmp_path):
    behaviour = Behaviour(BODY)
    data = dataset(server(behaviour))
    (tmp_path / "data.zip").write_bytes(BODY)
    assert fetch(data, tmp_path) == tmp_path / "data.zip"
    assert behaviour.requests == []


def test_present_damaged_file_is_replaced(server, tmp_path):
    (tmp_path / "data.zip").write_bytes(BODY[:1000])
    assert fetch(dataset(server(Behaviour(BODY)), md5=MD5), tmp_path).read_bytes() == BODY


def test_dropped_connections_are_resumed(server, tmp_path, pauses):
    behaviour = Behaviour(BODY, drops=[300_000, 100_000, 0])
    path = fetch(dataset(server(behaviour)), tmp_path)
    assert path.read_bytes() == BODY
    assert [r.get("Range") for r in behaviour.requests] == [
        None, "bytes=300000-", "bytes=400000-", "bytes=400000-"
    ]  # fmt: skip
    assert behaviour.requests[1]["If-Range"] == '"one"'
    assert len(pauses) == 3


def test_server_without_ranges_restarts(server, tmp_path):
    behaviour = Behaviour(BODY, ranges=False, drops=[300_000])
    assert fetch(dataset(server(behaviour)), tmp_path).read_bytes() == BODY


def test_changed_file_restarts(server, tmp_path):
    behaviour = Behaviour(BODY, drops=[300_000])
    base = server(behaviour)
    other = make_zip(2)

    def change(_seconds):
        behaviour.body, behaviour.etag = other, '"two"'

    module._pause = change  # the fixture's monkeypatch puts the original back
    assert fetch(dataset(base), tmp_path).read_bytes() == other


def test_no_validator_and_no_checksum_means_no_resume(server, tmp_path):
    behaviour = Behaviour(BODY, etag=None, drops=[300_000])
    assert fetch(dataset(server(behaviour)), tmp_path).read_bytes() == BODY
    assert "Range" not in behaviour.requests[1]


def test_no_validator_but_a_checksum_resumes(server, tmp_path):
    behaviour = Behaviour(BODY, etag=None, drops=[300_000])
    assert fetch(dataset(server(behaviour), md5=MD5), tmp_path).read_bytes() == BODY
    assert behaviour.requests[1]["Range"] == "bytes=300000-"


def test_range_that_does_not_fit_restarts(server, tmp_path):
    behaviour = Behaviour(BODY, drops=[300_000], wrong_start=True)
    assert fetch(dataset(server(behaviour)), tmp_path).read_bytes() == BODY
    assert "Range" not in behaviour.requests[2]


def test_ctrl_c_leaves_a_part_that_the_next_run_continues(server, tmp_path):
    behaviour = Behaviour(BODY)
    data = dataset(server(behaviour))

    def interrupt(have, _total):
        if have > 400_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(data, tmp_path, progress=interrupt)
    assert leftovers(tmp_path) == ["data.zip.part", "data.zip.part.json"]
    have = (tmp_path / "data.zip.part").stat().st_size
    assert fetch(data, tmp_path).read_bytes() == BODY
    assert behaviour.requests[1]["Range"] == f"bytes={have}-"
    assert leftovers(tmp_path) == ["data.zip"]


@pytest.mark.parametrize("notes", [None, "", "{}", "[]", '{"url": "x", "validator": "\\"one\\"", "total": 5}'])
def test_part_of_unknown_origin_is_not_used(server, tmp_path, notes):
    (tmp_path / "data.zip.part").write_bytes(b"x" * 1000)
    if notes is not None:
        (tmp_path / "data.zip.part.json").write_text(notes)
    assert fetch(dataset(server(Behaviour(BODY))), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("extra", [0, 10])
def test_complete_or_overlong_part(server, tmp_path, extra):
    base = server(Behaviour(BODY))
    (tmp_path / "data.zip.part").write_bytes(BODY + b"x" * extra)
    notes = {"url": f"{base}/data.zip", "validator": '"one"', "total": len(BODY)}
    (tmp_path / "data.zip.part.json").write_text(json.dumps(notes))
    assert fetch(dataset(base), tmp_path).read_bytes() == BODY


def test_wrong_size_is_refused_before_the_download(server, tmp_path):
    with pytest.raises(DatasetError, match="publisher lists 5"):
        fetch(dataset(server(Behaviour(BODY)), size=5), tmp_path)
    assert not (tmp_path / "data.zip").exists()


def test_wrong_checksum_throws_the_part_away(server, tmp_path):
    with pytest.raises(DatasetError, match="MD5"):
        fetch(dataset(server(Behaviour(BODY)), md5="0" * 32), tmp_path)
    assert leftovers(tmp_path) == []


def test_web_page_instead_of_an_archive(server, tmp_path):
    with pytest.raises(DatasetError, match="not a zip archive"):
        fetch(dataset(server(Behaviour(b"<html>sorry</html>"))), tmp_path)
    assert leftovers(tmp_path) == []


def test_unknown_length(server, tmp_path):
    seen = []
    behaviour = Behaviour(BODY, length=False)
    fetch(dataset(server(behaviour)), tmp_path, progress=lambda *p: seen.append(p))
    assert seen[-1] == (len(BODY), None)
    behaviour.body = BODY[:-100]
    with pytest.raises(DatasetError, match="cut short"):
        fetch(dataset(server(behaviour)), tmp_path / "other")


def test_busy_server_is_asked_again(server, tmp_path, pauses):
    behaviour = Behaviour(BODY, failures=[503, 429, 500])
    assert fetch(dataset(server(behaviour)), tmp_path).read_bytes() == BODY
    assert pauses == sorted(pauses)
    assert len(pauses) == 3


def test_gives_up_in_the_end(server, tmp_path, pauses):
    with pytest.raises(DatasetError, match=r"gave up.*503"):
        fetch(dataset(server(Behaviour(BODY, failures=[503] * 99))), tmp_path)
    assert len(pauses) == 4


def test_missing_file_says_so_at_once(server, tmp_path, pauses):
    with pytest.raises(DatasetError, match=r"404.*By hand"):
        fetch(dataset(server(Behaviour(BODY, failures=[404]))), tmp_path)
    assert pauses == []


def test_nobody_listens(tmp_path):
    with pytest.raises(DatasetError, match="gave up"):
        fetch(dataset("http://127.0.0.1:9"), tmp_path)


@pytest.mark.parametrize("base", ["file:///etc", "ftp://127.0.0.1"])
def test_other_schemes(base, tmp_path):
    with pytest.raises(DatasetError, match="not an http"):
        fetch(dataset(base), tmp_path)


def test_nothing_to_fetch_and_nowhere_to_write(server, tmp_path):
    with pytest.raises(DatasetError, match="nothing to download"):
        fetch(OwnRecordings(), tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot write"):
        fetch(dataset(server(Behaviour(BODY))), tmp_path / "file" / "folder")


def zenodo(base: str, listed) -> tuple[OwnRecordings, bytes]:
    data = replace(OwnRecordings(), name="test", files=(Download(f"{base}/record", "z.zip", zenodo=True),))
    return data, json.dumps(listed).encode()


def zenodo_file(base: str, **changes):
    return {
        "key": "v1.zip",
        "size": len(BODY),
        "checksum": f"md5:{MD5}",
        "links": {"self": f"{base}/a b.zip"},
    } | changes


def test_zenodo_record_gives_address_size_and_checksum(server, tmp_path):
    behaviour = Behaviour(BODY, drops=[10**9, 300_000])
    base = server(behaviour)
    data, behaviour.zenodo = zenodo(base, {"files": [{"key": "README.md"}, zenodo_file(base)]})
    assert fetch(data, tmp_path).read_bytes() == BODY
    assert fetch(data, tmp_path).read_bytes() == BODY
    assert len(behaviour.requests) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "Zenodo records API"),
        ({"files": [{"key": "a.zip"}]}, "Zenodo records API"),
        ({"files": []}, "expected one zip"),
        ({"files": [zenodo_file("http://x"), zenodo_file("http://x")]}, "expected one zip"),
        ({"files": [zenodo_file("file:///etc")]}, "less protected"),
    ],
)
def test_odd_zenodo_records(server, tmp_path, answer, message):
    behaviour = Behaviour(BODY)
    data, behaviour.zenodo = zenodo(server(behaviour), answer)
    with pytest.raises(DatasetError, match=message):
        fetch(data, tmp_path)


def test_zenodo_checksum_counts(server, tmp_path):
    behaviour = Behaviour(BODY)
    base = server(behaviour)
    data, behaviour.zenodo = zenodo(base, {"files": [zenodo_file(base, checksum="md5:" + "1" * 32)]})
    with pytest.raises(DatasetError, match="MD5"):
        fetch(data, tmp_path)
