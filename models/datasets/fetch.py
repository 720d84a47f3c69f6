"""Download a data set from its publisher, once.

A download goes into ``<file>.part``, which survives a dropped connection, Ctrl-C and the next run; only a file whose
size and checksum (as far as the publisher gives them) are right gets its name. ``<file>.part.json`` remembers what the
part is a part of.

A part is continued only if the server confirms with its validator (RFC 9110, 13.1.5 If-Range; a strong ETag or
Last-Modified) that the file is still the same one, or if the publisher's checksum will tell at the end.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import IO, Any, Final, Protocol

from models.datasets.base import Dataset, Download
from quantization.errors import DatasetError

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and with how many there will be where that is known."""

MAX_BYTES: Final = 8 << 30
"""More than any data set here; stops a server that never does."""

_BLOCK: Final = 1 << 18
_TIMEOUT_S: Final = 30.0
_FAILURES: Final = 5
"""Attempts in a row that may bring nothing new."""
_ATTEMPTS: Final = 50
_LONGEST_PAUSE_S: Final = 30.0
_RECORD_BYTES: Final = 1 << 20
_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)
_NETWORK_ERRORS: Final = (urllib.error.URLError, http.client.HTTPException, OSError)


def fetch(dataset: Dataset, folder: Path, *, progress: Progress | None = None) -> Path:
    """Download what ``dataset`` consists of into ``folder``, unless it is there already.

    Returns:
        The archive; the folder, where a data set has several files.

    Raises:
        DatasetError: it cannot be downloaded, or what arrived is not what the publisher lists. A part stays behind
            for the next attempt if it can still be of use.
        KeyboardInterrupt: as always; the part stays.
    """
    if not dataset.files:
        raise DatasetError(f"{dataset.name}: nothing to download. {dataset.how_to}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [_fetch_file(file, folder / file.filename, progress) for file in dataset.files]
    except OSError as error:
        raise DatasetError(f"{dataset.name}: cannot write to {folder}: {error}") from error
    except DatasetError as error:
        raise DatasetError(f"{dataset.name}: {error}. By hand: {dataset.how_to}") from error
    return paths[0] if len(paths) == 1 else folder


class _Response(Protocol):
    status: int

    @property
    def headers(self) -> Message: ...
    def read(self, size: int, /) -> bytes: ...


class _TransientError(Exception):
    """Try again: the connection broke, or the server is busy."""


@dataclass(frozen=True)
class _Part:
    """What a part is a part of; lies beside it as JSON."""

    url: str
    validator: str | None
    total: int | None


def _fetch_file(file: Download, target: Path, progress: Progress | None) -> Path:
    if target.exists() and _problem(target, file) is None:  # whole, as far as that can be told without asking
        return target
    if file.zenodo:
        file = _ask_zenodo(file)
    part, notes = Path(f"{target}.part"), Path(f"{target}.part.json")
    _persist(lambda: _attempt(file, part, notes, progress), lambda: part.stat().st_size if part.exists() else 0, file)
    problem = _problem(part, file)
    if problem is not None:
        part.unlink()
        notes.unlink(missing_ok=True)
        raise DatasetError(f"{file.url}: {problem}; the download has been thrown away")
    part.replace(target)  # atomic: a file with its own name is always whole
    notes.unlink(missing_ok=True)
    return target


def _persist(attempt: Callable[[], None], have: Callable[[], int], file: Download) -> None:
    """Repeat ``attempt`` over transient errors, as long as that brings more bytes than ever before."""
    best, failures = have(), 0
    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except _TransientError as error:
            failures = 0 if have() > best else failures + 1
            best = max(best, have())
            if failures >= _FAILURES:
                raise DatasetError(f"{file.url}: gave up after {failures} attempts in vain: {error}") from error
        _pause(min(2.0**failures, _LONGEST_PAUSE_S))
    raise DatasetError(f"{file.url}: gave up after {_ATTEMPTS} broken connections")


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _open(url: str, headers: dict[str, str]) -> Any:  # noqa: ANN401  # urllib's own type is not public
    """Send a GET. :class:`_TransientError` or :class:`DatasetError` for everything but 200, 206 and 416."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DatasetError(f"{url}: not an http(s) address")
    headers = {"User-Agent": "gammawear", "Accept-Encoding": "identity", **headers}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # the scheme is checked above
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return error
        error.close()
        if error.code in _TRANSIENT:
            raise _TransientError(f"HTTP {error.code} {error.reason}") from error
        raise DatasetError(f"{url}: HTTP {error.code} {error.reason}") from error
    except _NETWORK_ERRORS as error:
        raise _TransientError(str(error) or type(error).__name__) from error


def _read(response: _Response, size: int) -> bytes:
    try:
        return response.read(size)
    except _NETWORK_ERRORS as error:
        raise _TransientError(str(error) or type(error).__name__) from error


def _attempt(file: Download, part: Path, notes: Path, progress: Progress | None) -> None:
    """One request: continue the part if possible, else start again."""
    headers = _range_headers(file, part, notes)
    with _open(file.url, headers) as response:
        start, total = _place(response, part, headers)
        if file.size is not None and total is not None and total != file.size:
            raise DatasetError(f"{file.url}: the server has {total} bytes, the publisher lists {file.size}")
        total = file.size if total is None else total
        notes.write_text(json.dumps(vars(_Part(file.url, _validator(response), total))))
        with part.open("r+b" if start else "wb") as stream:
            stream.truncate(start)
            stream.seek(start)
            if response.status != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                _copy(response, stream, file.url, total, progress)
            have = stream.tell()
    if total is not None and have < total:  # a body cut short is silent unless it is chunked
        raise _TransientError(f"the connection ended after {have} of {total} bytes")


def _copy(response: _Response, stream: IO[bytes], url: str, total: int | None, progress: Progress | None) -> None:
    while block := _read(response, _BLOCK):
        stream.write(block)
        have = stream.tell()
        if have > (MAX_BYTES if total is None else total):
            raise DatasetError(f"{url}: more bytes than the {MAX_BYTES if total is None else total} announced")
        if progress is not None:
            progress(have, total)


def _range_headers(file: Download, part: Path, notes: Path) -> dict[str, str]:
    """Headers that ask for the rest of a part; empty when there is none, or none that can be trusted."""
    have = part.stat().st_size if part.exists() else 0
    if not have:
        return {}
    try:
        known = _Part(**json.loads(notes.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
    if known.url != file.url or (known.validator is None and file.md5 is None):
        return {}
    headers = {"Range": f"bytes={have}-"}
    if known.validator is not None:
        headers["If-Range"] = known.validator
    return headers


def _place(response: _Response, part: Path, headers: dict[str, str]) -> tuple[int, int | None]:
    """Where in the file the body begins, and the size of the whole file if the server says."""
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range") or "")
    if response.status == http.HTTPStatus.OK:
        length = response.headers.get("Content-Length") or ""
        return 0, int(length) if length.isdecimal() else None
    have = part.stat().st_size if part.exists() else 0
    total = int(span[2]) if span and span[2] != "*" else None
    if response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and headers and total == have:
        return have, total  # nothing is missing
    if response.status == http.HTTPStatus.PARTIAL_CONTENT and headers and span and span[1] == str(have):
        return have, total
    part.unlink(missing_ok=True)  # what came does not continue what is here
    raise _TransientError(f"HTTP {response.status} with an unusable range; starting again")


def _validator(response: _Response) -> str | None:
    etag: str | None = response.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("Last-Modified")
    return modified


def _problem(path: Path, file: Download) -> str | None:
    """What is wrong with a finished file, None if nothing is."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"{size} bytes, the publisher lists {file.size}"
    if file.md5 is not None:
        digest = hashlib.md5(usedforsecurity=False)  # the publisher's choice; it is against accidents
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != file.md5.lower():
            return f"MD5 {digest.hexdigest()}, the publisher lists {file.md5}"
    if file.filename.endswith(".zip") and not zipfile.is_zipfile(path):
        return "not a zip archive, or one cut short"
    return None


def _ask_zenodo(file: Download) -> Download:
    """Address, size and MD5 of the only zip of a Zenodo record, from its REST API."""
    found: list[Download] = []

    def ask() -> None:
        with _open(file.url, {"Accept": "application/json"}) as response:
            raw = _read(response, _RECORD_BYTES)
        try:
            listed = json.loads(raw)["files"]
            for each in (each for each in listed if str(each["key"]).endswith(".zip")):
                kind, _, md5 = str(each["checksum"]).partition(":")
                url = urllib.parse.quote(str(each["links"]["self"]), safe="/:?=&%+~@!$,;'()*")
                size = int(each["size"])
                found.append(replace(file, url=url, size=size, md5=md5 if kind == "md5" else None, zenodo=False))
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{file.url}: not an answer of the Zenodo records API: {error!r}") from error

    _persist(ask, lambda: 0, file)
    if len(found) != 1:
        raise DatasetError(f"{file.url}: expected one zip in the record, found {len(found)}")
    if urllib.parse.urlsplit(found[0].url).scheme != urllib.parse.urlsplit(file.url).scheme:
        raise DatasetError(f"{file.url}: refers to {found[0].url}, which is less protected")
    return found[0]
