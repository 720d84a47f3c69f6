"""Reads ``tests/vectors/*.hex``: bytes in hexadecimal, spaces and line breaks as one likes, ``#`` begins a comment."""

from pathlib import Path

VECTORS = Path(__file__).parent / "vectors"


def read_vector(name: str) -> bytes:
    return from_commented_hex((VECTORS / name).read_text(encoding="utf-8"))


def from_commented_hex(text: str) -> bytes:
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in text.splitlines()))
