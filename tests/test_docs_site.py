"""The documents as a site and on a repository's host: it builds, looks alike in both, and no link leads nowhere."""

from __future__ import annotations

import html.parser
import itertools
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
OUTSIDE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("deploy/**/*.md"))]
PARSER = MarkdownIt("commonmark").enable("table")
FORMS = ("table", "th", "li", "pre", "img")


class Html(html.parser.HTMLParser):
    """A built page: anchors, links, what a browser loads for it, and how often each form stands in its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.forms: Counter[str] = Counter()
        self._article = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._article |= tag == "article"
        if self._article:
            self.forms[tag] += 1
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") != "canonical":
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])

    def handle_endtag(self, tag: str) -> None:
        self._article &= tag != "article"


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(site),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    path = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Html]:
    """Every page of the site, by its resolved path."""
    return {path.resolve(): Html(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_no_link_of_the_site_leads_nowhere(built: dict[Path, Html]) -> None:
    nowhere = []
    for path, page in built.items():
        for link in [*page.links, *page.loaded]:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (parts.fragment and parts.fragment not in {"__skip", *built[target].anchors}):
                nowhere.append((path.name, link))
    assert nowhere == []


def test_nothing_is_loaded_from_elsewhere(built: dict[Path, Html]) -> None:
    assert all(page.loaded for page in built.values())
    assert {link for page in built.values() for link in page.loaded if urllib.parse.urlsplit(link).netloc} == set()


def test_files_outside_of_docs_are_shown(site: Path) -> None:
    shown = (site / "repository" / "deploy" / "mosquitto" / "acl.html").read_text(encoding="utf-8")
    assert "pattern write gammawear/v1/%u/imu" in shown
    assert "alerts.yml" in (site / "repository" / "deploy" / "prometheus.html").read_text(encoding="utf-8")
    assert "96 bytes, binary" in (site / "repository" / "tests" / "hostile.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_site_reads_markdown_as_hosts_do(page: Path, site: Path, built: dict[Path, Html]) -> None:
    """MkDocs has a parser of its own: what it takes for a table, a list or a block must be one elsewhere, too."""
    tags = {"fence": "pre", "code_block": "pre", "image": "img"}
    expected = Counter(tags.get(token.type, token.tag) for token in tokens(page) if token.nesting >= 0)
    found = built[(site / page.with_suffix(".html").name).resolve()].forms
    assert {form: found[form] for form in FORMS} == {form: expected[form] for form in FORMS}


def test_every_page_is_in_the_navigation() -> None:
    navigation = re.findall(r"^  - [^:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(navigation) == [page.name for page in PAGES]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](nowhere.md)", "'nowhere.md'"),
        ("[a](../nowhere/else.yml)", "'../nowhere/else.yml'"),
        ("[a](#nowhere)", "'#nowhere'"),
        ("[a](faq.md#nowhere)", "'faq.md#nowhere'"),
    ],
)
def test_a_link_that_leads_nowhere_is_refused(text: str, said: str, tmp_path: Path) -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    start, end = settings.index("nav:"), settings.index("hooks:")
    (tmp_path / "mkdocs.yml").write_text(settings[:start] + settings[end:], encoding="utf-8")
    shutil.copy(ROOT / "mkdocs_hooks.py", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "faq.md").write_text("# Questions\n", encoding="utf-8")
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n{text}\n", encoding="utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stderr


# -- on a repository's host -------------------------------------------------------------------------------------------


def tokens(page: Path) -> Iterator[Token]:
    """All of a document, inline ones included."""
    for token in PARSER.parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or []


def anchors(page: Path) -> set[str]:
    """Those that hosts make of headings: small letters, words joined by hyphens, the second of a name with a number."""
    seen: Counter[str] = Counter()
    found = set()
    parsed = PARSER.parse(page.read_text(encoding="utf-8"))
    for opening, inline in itertools.pairwise(parsed):
        if opening.type == "heading_open":
            words = "".join(token.content for token in inline.children or [])
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


@pytest.mark.parametrize("page", [*OUTSIDE, *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_of_the_repository_leads_nowhere(page: Path) -> None:
    nowhere = []
    for token in tokens(page):
        link = token.attrGet("href") or token.attrGet("src")
        parts = urllib.parse.urlsplit(str(link or "https:"))
        if parts.scheme:
            continue
        target = (page.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else page
        if not target.exists() or (parts.fragment and parts.fragment not in anchors(target)):
            nowhere.append(link)
    assert nowhere == []
