"""A real Chromium that opens the live page, and notes whatever goes wrong in it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from needed import need
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

PATIENCE_S: Final = 30.0
NODE_MODULES = Path(__file__).parent.parent / "node_modules"
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_READS = "(selector) => document.querySelector(selector)?.textContent.trim() ?? null"
_MEASURE = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.longTasks.push(task.duration);
}).observe({ type: "longtask", buffered: true });
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifted += shift.value;
}).observe({ type: "layout-shift", buffered: true });
"""


class Tab:
    """The page in a browser.

    Attributes:
        page: Playwright's.
        problems: errors of scripts, and whatever the console was told as an error or a warning: violations of the
            content security policy are among that.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        page.set_default_timeout(1000 * PATIENCE_S)
        page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        page.on("console", self._note)

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, browser: Browser, port: int | None, path: str = "", **context: Any) -> AsyncIterator[Tab]:
        """Open the page of a gateway on this machine; ``context`` as Playwright's ``new_context``."""
        window = {"viewport": {"width": 1440, "height": 1000}} | context
        opened = await browser.new_context(**window)
        tab = cls(await opened.new_page())
        await tab.page.add_init_script(_MEASURE)
        await tab.page.goto(f"http://127.0.0.1:{port}/{path}", wait_until="domcontentloaded")
        try:
            yield tab
        finally:
            await opened.close()

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    async def text(self, selector: str) -> str:
        """What somebody reads there."""
        return (await self.page.inner_text(selector)).strip()

    async def until(self, condition: str, argument: object = None) -> None:
        """Wait until an expression is true, or a function of ``argument`` gives something true.

        Playwright's own waiting makes code of text inside the page, which the page's policy forbids.
        """
        async with asyncio.timeout(PATIENCE_S):
            while not await self.page.evaluate(condition, argument):  # noqa: ASYNC110 - states of a page
                await asyncio.sleep(0.05)

    async def shows(self, selector: str, text: str) -> None:
        """Wait until an element reads so."""
        found = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (found := await self.page.evaluate(_READS, selector)) != text:  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise AssertionError(f"{selector} reads {found!r}, not {text!r}") from error

    async def live(self) -> None:
        """Wait until it shows what the gateway says now."""
        await self.shows("#link", "live")


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's browser, without a window."""
    binary = shutil.which("chromium")
    need(binary, "chromium (Debian: apt install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=binary, args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def opened(port: int | None, path: str = "", **context: Any) -> AsyncIterator[Tab]:
    """The page of a gateway on this machine, in a browser of its own; ``context`` as Playwright's ``new_context``."""
    async with chromium() as browser, Tab.of(browser, port, path, **context) as tab:
        yield tab
