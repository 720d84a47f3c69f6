"""Pictures for the documentation: the live page of the demonstration, as Debian's Chromium shows it, and its camera's.

python -m benchmarks.screenshots    # docs/page.jpg, page-dark.jpg, page-phone.jpg, page-device.jpg and camera.jpg
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

from PIL import Image
from playwright.sync_api import Browser, ViewportSize, sync_playwright

from gammawear.broker import free_port
from quantization.errors import GammawearError

DOCS: Final = Path(__file__).parent.parent / "docs"
MAX_BYTES: Final = 200_000
_DESK: Final[ViewportSize] = {"width": 1360, "height": 900}
_PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
_FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")


@contextlib.contextmanager
def demonstration(wearables: int) -> Iterator[str]:
    """The address of the page of a ``gammawear demo`` that runs."""
    port = str(free_port())
    options = ["--wearables", str(wearables), "--part", "bmi270", "--metrics-port", "0", "--page-port", port]
    command = [sys.executable, "-c", "from gammawear.cli import main; main()", "demo", *options]
    url = f"http://127.0.0.1:{port}/"
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        while not _healthy(url):
            if running.poll() is not None:
                raise GammawearError(f"the demonstration ended with status {running.returncode}")
            time.sleep(0.2)
        yield url
    finally:
        running.terminate()
        running.wait(30)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}healthz", timeout=5) as answer:  # noqa: S310 - ours
            return answer.status == HTTPStatus.OK
    except OSError:
        return False


def shoot(
    browser: Browser,
    url: str,
    path: Path,
    *,
    seconds: float = 12.0,
    window: ViewportSize = _DESK,
    scheme: Literal["light", "dark"] = "light",
    whole: bool = False,
    device: str | None = None,
) -> None:
    """Open the page, wait, and write one picture.

    Args:
        browser: the one that shows it.
        url: of the page.
        path: of the JPEG.
        seconds: to wait.
        window: its size.
        scheme: light or dark.
        whole: all of the page, beyond the window.
        device: whose details to show.
    """
    context = browser.new_context(reduced_motion="reduce", viewport=window, color_scheme=scheme)
    page = context.new_page()
    page.goto(url if device is None else f"{url}#device={device}")
    page.wait_for_selector("#rows .line" if device is None else ".signal canvas")
    page.wait_for_timeout(1000 * seconds)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    context.close()
    for quality in (88, 80, 70, 60, 50):
        picture.save(path, quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= MAX_BYTES:
            break


def preview(url: str, wanted: set[str]) -> bytes:
    """The JPEG of the first camera, as soon as all that is wanted is seen for so long that it is in the picture."""
    before = None
    for _ in range(600):
        with urllib.request.urlopen(f"{url}api/state", timeout=5) as answer:  # noqa: S310 - ours
            camera = json.load(answer)["cameras"][0]
        if not wanted <= {label for label, _ in camera["found"]}:
            before = None
        elif before is None:
            before = camera["preview"]
        elif camera["preview"] != before:
            with urllib.request.urlopen(url + camera["preview"][1:], timeout=5) as picture:  # noqa: S310 - ours
                return bytes(picture.read())
        time.sleep(0.2)
    raise GammawearError(f"the camera never saw {' and '.join(sorted(wanted))}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the demonstration before the first picture")
    parser.add_argument("--wearables", type=int, default=12)
    parser.add_argument("--out", type=Path, default=DOCS)
    chosen = parser.parse_args(arguments)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no chromium: on Debian, apt install chromium")
    with demonstration(chosen.wearables) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        out = chosen.out
        shoot(browser, url, out / "page.jpg", seconds=chosen.seconds, whole=True)
        shoot(browser, url, out / "page-dark.jpg", scheme="dark", whole=True)
        shoot(browser, url, out / "page-phone.jpg", window=_PHONE)
        shoot(browser, url, out / "page-device.jpg", device="wearable-01")
        (out / "camera.jpg").write_bytes(preview(url, {"person", "parcel"}))
        browser.close()


if __name__ == "__main__":
    main()
