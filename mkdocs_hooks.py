"""What MkDocs asks while it builds the site: pages for files of the repository that docs/ links to.

On a repository's host, ``../deploy/mosquitto/acl`` is a link to that file. The site has no repository beside it, so
each such file or folder becomes a page of its own below ``repository/``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

OUTSIDE = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(#[^)]*)?\)")
"""A Markdown link that climbs; whether it leaves docs/ depends on where it stands."""
NAMED_BLOCK = re.compile(r"^(```\w+) (\S+)$", re.MULTILINE)
"""The beginning of a block of code like those of wire-format.md, which hosts show without its name."""
MOST_CHARACTERS = 100_000
"""Of a file that is shown."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file or folder outside of docs/ that a page of docs/ links to."""
    targets = set()
    for file in files.documentation_pages():
        for match in OUTSIDE.finditer(file.content_string):
            target = _outside(file.src_uri, match[1])
            if target:
                targets.add(target)
    root = Path(config.config_file_path).parent
    for target in sorted(targets):
        if (root / target).exists():  # else the link stays as it is, and --strict refuses it
            page = File.generated(config, _page(target), content=_shown(root, target))
            page.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs names them
    """Point the links that leave docs/ to these pages; make of a name after a block's language its title."""

    def replaced(match: re.Match[str]) -> str:
        target = _outside(page.file.src_uri, match[1])
        if not target or files.get_file_from_path(_page(target)) is None:
            return match[0]
        return f"]({os.path.relpath(_page(target), PurePosixPath(page.file.src_uri).parent)})"

    return NAMED_BLOCK.sub(r'\1 title="\2"', OUTSIDE.sub(replaced, markdown))


def _outside(source: str, link: str) -> str | None:
    """What a link names, from the repository's root; none where it stays in docs/ or leaves the repository."""
    path = os.path.normpath(PurePosixPath("docs", source).parent / link)
    return None if path.split("/")[0] in {"..", "docs"} else path


def _page(target: str) -> str:
    return f"repository/{target}.md"


def _shown(root: Path, target: str) -> str:
    """Markdown that shows a file, or every file of a folder."""
    path = root / target
    parts = [f"---\nsearch:\n  exclude: true\n---\n\n# `{target}`\n"]
    if path.is_file():
        return parts[0] + _text(path)
    parts.append("A folder of the repository.\n")
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and "__pycache__" not in file.parts]
    parts += [f"## `{file.relative_to(path).as_posix()}`\n\n{_text(file)}" for file in files]
    return "\n".join(parts)


def _text(path: Path) -> str:
    """A file as a block of code; its size where it is no text."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return f"{path.stat().st_size} bytes, binary.\n"
    if len(text) > MOST_CHARACTERS:
        return f"{len(text)} characters, not shown.\n"
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    language = {".py": "python", ".yml": "yaml", ".json": "json", ".toml": "toml", ".sh": "bash"}.get(
        path.suffix, "text"
    )
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"
