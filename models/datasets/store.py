"""Files of a data set, wherever they lie: in a folder, in a zip, or in a zip inside either.

Nothing is ever unpacked under a name that an archive chose: members are read into memory, and an inner archive goes
into a nameless temporary file. Every read is bounded, because an archive may say or hold anything.
"""

from __future__ import annotations

import lzma
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Final

from quantization.errors import DatasetError

MAX_FILE_BYTES: Final = 1 << 30
"""The largest single file that is read from a folder: a few days of somebody's own recording."""

MAX_MEMBER_BYTES: Final = 64 << 20
"""The largest one that is read from an archive, where it costs its sender a thousandth, and its reader twenty times as
much to parse. The largest file of a known data set has 5 MB."""

MAX_INNER_ARCHIVE_BYTES: Final = 4 << 30
"""The largest archive inside an archive. WISDM's, the only one we know, has about 0.3 GB."""

MAX_FILES: Final = 200_000
"""More files than this under one folder is somebody's home directory, not a data set."""

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,  # a compression that zipfile does not know
    RuntimeError,  # its answer to a password
    ValueError,  # and to a name that is marked as UTF-8 and is none, or a place beyond any file
)


@dataclass(frozen=True)
class Entry:
    """One file of a store.

    Args:
        path: where it lies in the store, with ``/``; only ever matched and shown.
        where: the same for people, with the archive in front.
        open: opens the file for reading.
        file: the file itself, where it is one on disk.
    """

    path: str
    where: str
    open: Callable[[], IO[bytes]]
    file: Path | None = None

    def read(self, limit: int | None = None) -> bytes:
        """All bytes of the file.

        Args:
            limit: refuses a larger file; None takes what its place allows.

        Raises:
            DatasetError: larger, or damaged.
        """
        advice = "that is no file of a data set"
        if limit is None and self.file is None:
            limit, advice = MAX_MEMBER_BYTES, "unpack the archive and give the folder"
        elif limit is None:
            limit = MAX_FILE_BYTES
        data = self.head(limit + 1)
        if len(data) > limit:
            raise DatasetError(f"{self.where}: larger than {limit} bytes; {advice}")
        return data

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes, fewer if the file is shorter."""
        try:
            with self.open() as stream:
                return stream.read(size)
        except _ZIP_ERRORS as error:
            raise DatasetError(f"{self.where}: cannot be read: {error}") from error


@dataclass(frozen=True)
class Found:
    """An entry whose path matched a pattern."""

    entry: Entry
    match: re.Match[str]


class Store:
    """A folder or a zip, opened. Use as a context manager.

    Raises:
        DatasetError: nothing is there, it is not a zip, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._resources = ExitStack()
        self._inner: list[Entry] | None = None
        if path.is_dir():
            self.entries = list(_folder_entries(path))
        elif path.is_file():
            self.entries = self._archive_entries(path, str(path), _check_zip(path))
        else:
            raise DatasetError(f"{path}: no such file or folder; expected a data set's archive or its unpacked folder")

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def find(self, pattern: re.Pattern[str]) -> list[Found]:
        """Entries whose path ``pattern`` finds (``search``), in order of their paths.

        Archives inside the store are opened only if nothing outside of them matches, and only one level deep (an
        archive that lies in a folder counts as the outer one).

        Raises:
            DatasetError: two entries match with the same text. One of them is a copy, and counting a subject twice
                is worse than stopping.
        """
        found = _matching(self.entries, pattern)
        if not found:
            found = _matching(self.inner(), pattern)
        return found

    def inner(self) -> list[Entry]:
        """Entries of the archives inside this one; opened on the first call."""
        if self._inner is None:
            self._inner = []
            for entry in [e for e in self.entries if e.path.lower().endswith(".zip")]:
                self._inner += self._open_inner(entry)
        return self._inner

    def listing(self, limit: int = 5) -> str:
        """The first few paths, for a message that says what was found."""
        paths = sorted(entry.path for entry in [*self.entries, *(self._inner or [])])
        if not paths:
            return "nothing"
        more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
        return ", ".join(paths[:limit]) + more

    def _open_inner(self, entry: Entry) -> list[Entry]:
        if entry.file is None:
            return self._archive_entries(self._spool(entry), entry.where, entry.path)
        outer = self._archive_entries(entry.file, entry.where, _check_zip(entry.file))
        inner: list[Entry] = []
        for each in [e for e in outer if e.path.lower().endswith(".zip")]:
            inner += self._archive_entries(self._spool(each), each.where, each.path)
        return outer + inner

    def _spool(self, entry: Entry) -> IO[bytes]:
        """Copy an inner archive, which cannot be read in place, to a file without a name."""
        spool = self._resources.enter_context(tempfile.TemporaryFile(prefix="gammawear-"))  # noqa: SIM115
        left = MAX_INNER_ARCHIVE_BYTES
        try:
            with entry.open() as stream:
                while left >= 0 and (block := stream.read(1 << 20)):
                    left -= len(block)
                    spool.write(block)
        except _ZIP_ERRORS as error:
            raise DatasetError(f"{entry.where}: cannot be read: {error}") from error
        if left < 0:
            raise DatasetError(f"{entry.where}: larger than {MAX_INNER_ARCHIVE_BYTES} bytes when unpacked")
        spool.seek(0)
        return spool

    def _archive_entries(self, source: Path | IO[bytes], where: str, prefix: str) -> list[Entry]:
        try:
            archive = self._resources.enter_context(zipfile.ZipFile(source))
            named = [info for info in archive.infolist() if info.filename]
            members = [info for info in named if not info.is_dir() and not _is_clutter(info.filename)]
        except _ZIP_ERRORS as error:
            self._resources.close()
            raise DatasetError(f"{where}: not a usable zip archive: {error}") from error
        if len(members) > MAX_FILES:
            raise DatasetError(f"{where}: {len(members)} files; a data set has fewer than {MAX_FILES}")
        prefix = f"{prefix}/" if prefix else ""
        return [
            Entry(
                path=prefix + info.filename.replace("\\", "/"),
                where=f"{where}:{info.filename}",
                open=lambda info=info: archive.open(info),  # type: ignore[misc]  # binds the loop's variable
            )
            for info in members
        ]


def _check_zip(path: Path) -> str:
    """Raise unless ``path`` looks like a zip; returns the (empty) prefix of its members."""
    with path.open("rb") as stream:
        head = stream.read(16)
    if not zipfile.is_zipfile(path):
        seen = "an empty file" if not head else f"it begins with {head!r}"
        hint = " (a web page: the download went wrong)" if head.lstrip().startswith(b"<") else ""
        raise DatasetError(f"{path}: not a zip archive, or one cut short: {seen}{hint}")
    return ""


def _folder_entries(folder: Path) -> Iterator[Entry]:
    count = 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(root, name)
            path = file.relative_to(folder).as_posix()
            if _is_clutter(path):
                continue
            count += 1
            if count > MAX_FILES:
                raise DatasetError(f"{folder}: more than {MAX_FILES} files; give the data set's own folder")
            yield Entry(path=path, where=str(file), open=lambda file=file: file.open("rb"), file=file)  # type: ignore[misc]


def _is_clutter(path: str) -> bool:
    """What a Mac leaves behind: ``.DS_Store``, ``__MACOSX/…``, ``._name``."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return "__MACOSX" in parts or (bool(parts) and (parts[-1] == ".DS_Store" or parts[-1].startswith("._")))


def _matching(entries: list[Entry], pattern: re.Pattern[str]) -> list[Found]:
    found: dict[str, Found] = {}
    for entry in sorted(entries, key=lambda entry: entry.path):
        match = pattern.search(entry.path)
        if match is None:
            continue
        first = found.setdefault(match.group(0).lstrip("/"), Found(entry, match))
        if first.entry is not entry:
            raise DatasetError(f"the same file twice: {first.entry.where} and {entry.where}; keep one of them")
    return list(found.values())
