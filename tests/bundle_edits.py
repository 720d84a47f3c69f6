"""Changes to a bundle's files, for what must then be refused."""

import json
from pathlib import Path
from typing import Any

from models.bundle_files import MANIFEST_FILE


def flipped(data: bytes, at: int, change: int) -> bytes:
    return data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]


def with_manifest(folder: Path, change: dict[str, Any]) -> Path:
    """The same folder, its manifest with other values; a dotted key goes inside."""
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    for key, value in change.items():
        inside = manifest
        *outer, last = key.split(".")
        for name in outer:
            inside = inside[name]
        inside[last] = value
    # JSON has no word for infinity, but numbers that are read as one.
    path.write_text(json.dumps(manifest).replace("Infinity", "1e400"))
    return folder
