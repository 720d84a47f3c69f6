"""The live page in a real browser, before a real gateway, broker and wearables: it shows what they say."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
import urllib.request

import pytest
from camera_stack import save_untrained, scene_node
from chromium import NODE_MODULES, Tab, chromium, opened
from needed import need
from proxy import Proxy
from stack import Listener, all_answered, fetch_metrics, new_gateway, note, serving, streaming, synthetic, until

from device_emulator.camera.publisher import CameraPublisher
from gateway.live.app import STATIC
from models.bundle import SHIPPED, load_bundle
from protocol.messages import Label, Status
from protocol.topics import Kind, every, topic

VENDORED = {
    "uPlot.iife.min.js": ("dist/uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
    "uPlot.min.css": ("dist/uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
    "LICENSE-uPlot.txt": ("LICENSE", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
}
TOKEN = "0123456789abcdef-for-this-test"  # noqa: S105 - of no gateway
LONG_TASK_MS = 50
"""What browsers call a long task."""
RECEIVED = """() => {
    const [figure, unit] = document.querySelector("#totals tr td:nth-child(3)").textContent.split(/\\s/);
    return Number(figure) * 1000 ** ["B", "kB", "MB"].indexOf(unit);
}"""
"""Bytes that the page says have come."""
HOSTILE = '<img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def wrist6():
    return load_bundle("wrist6")


async def state_of(gateway):
    """What the page is told."""

    def get():
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.page_port}/api/state", timeout=60) as answer:
            return json.load(answer)

    return await asyncio.to_thread(get)


def words(label):
    """As the page writes a label."""
    return label.replace("_", " ").lower()


async def cells(tab, device):
    """One row of the list, by column."""
    found = await tab.page.query_selector_all(f'#rows [data-device="{device}"] [role="gridcell"]')
    return {await cell.get_attribute("data-key"): (await cell.inner_text()).strip() for cell in found}


@pytest.mark.parametrize("name", VENDORED)
def test_what_is_vendored_is_the_package(name):
    source, digest = VENDORED[name]
    content = (STATIC / "vendor" / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    package = NODE_MODULES / "uplot"
    need(package.exists(), "uplot (make vendor)")
    assert (package / source).read_bytes() == content


async def test_it_shows_what_the_gateway_says(mosquitto, wrist6, tmp_path):
    detector = save_untrained(tmp_path)
    camera = CameraPublisher(scene_node(detector.codebook, fps=4.0), mosquitto.settings, qos=1)
    gateway = new_gateway(mosquitto.settings, folders=(SHIPPED, tmp_path), page_port=0, metrics_port=0)
    async with serving(gateway), Listener(mosquitto.settings, every(Kind.ACTIVITY)) as listener:
        running = asyncio.create_task(camera.run())
        async with streaming(synthetic(wrist6, mosquitto.settings, 3)):
            await until(lambda: gateway.summary().scored > 60 and gateway.cameras.totals.frames >= 3)
        await camera.stop(timeout=60)
        await running
        await all_answered(gateway)
        # Opened late: nothing comes any more, so everything has one right value.
        async with opened(gateway.page_port) as tab:
            await tab.live()
            await tab.page.wait_for_selector("#rows .line")
            state, metrics = await state_of(gateway), await fetch_metrics(gateway)
            await check_figures(tab, state, metrics)
            for device in ("wearable-01", "wearable-02", "wearable-03"):
                answer = listener.activities(device)[-1]
                row = await cells(tab, device)
                assert row["activity"] == words(answer.activity)
                assert row["probability"] == f"{100 * answer.probability:.0f}\u202f%"
                view = next(one for one in state["devices"] if one["device"] == device)
                assert row["bits_per_value"] == f"{view['bits_per_value']:.2f}"
                assert row["radio_ua"] == f"{view['radio_ua']:.1f}"
            [seen] = state["cameras"]
            await tab.shows('.camera [data-key="frames"]', f"{seen['frames']} frames")
            await tab.until("document.querySelector('.camera img').naturalWidth > 0")
            assert tab.problems == []


async def check_figures(tab, state, metrics):
    """The big figures, the totals and the confusion matrix, against the interface and what Prometheus sees."""
    summary, model = state["summary"], state["models"][state["summary"]["model"]]
    await tab.shows("#bits", f"{summary['bits_per_value']:.2f}")
    await tab.shows("#compression", f"{summary['compression']:.1f}×")
    await tab.shows("#score", f"{model['rolling_macro_f1']:.3f}")
    assert (await tab.text("#score-note")).startswith(f"last {min(500, model['windows'])} windows")
    exported = metrics[f'gammawear_live_macro_f1_ratio{{model="{summary["model"]}",span="total"}}']
    assert model["macro_f1"] == pytest.approx(exported)
    assert f"all {exported:.3f}" in await tab.text("#score-note")
    sent = state["bandwidth"]["bytes"]
    factor = await tab.text('#totals [data-key="raw12"] td:last-child')
    assert factor == f"{sent['raw12'] / sent['mqtt']:.1f}×"
    shown = await confusion(tab)
    assert shown == model["confusion"]
    assert sum(map(sum, shown)) == model["windows"]


async def confusion(tab):
    """The matrix, as it is shown."""
    rows = await tab.page.evaluate(
        "Array.from(document.querySelectorAll('#confusion tbody tr'), (row) =>"
        " Array.from(row.querySelectorAll('td:not(.recall)'), (cell) => cell.textContent))"
    )
    return [[0 if cell == "·" else int(cell.replace("\u202f", "")) for cell in row] for row in rows]


async def test_it_follows(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), opened(gateway.page_port) as tab:
        await tab.shows("#devices-empty p", "No devices yet")
        assert "gammawear device" in await tab.text("#devices-empty")
        assert await tab.text("#score-note") == "no labels"
        assert await tab.text("#score") == "–"
        async with streaming(synthetic(wrist6, mosquitto.settings, 2, speed=4.0, labels=False)):
            await tab.until("document.querySelectorAll('#rows .line').length === 2")
            await tab.until("/^\\d+\u202f%$/.test(document.querySelector('#score').textContent)")
            # Confidence is shown, never an accuracy of zero.
            assert await tab.text("#score-name") == "Mean confidence"
            assert await tab.page.is_hidden("#confusion-scroll")
            assert (await cells(tab, "wearable-01"))["truth"] == ""
            await tab.until(f"({RECEIVED})() > 0")
            before = await tab.page.evaluate(RECEIVED)
            await tab.until(f"before => ({RECEIVED})() > before", before)
            await tab.until("document.querySelector('#bandwidth-chart canvas') !== null")
        assert await tab.text("#source") == "synthetic sources"
        assert tab.problems == []


async def test_a_gateway_that_comes_back(mosquitto, wrist6, free_port):
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(streaming(synthetic(wrist6, mosquitto.settings, 2, speed=4.0)))
        async with serving(new_gateway(mosquitto.settings, page_port=free_port)) as first:
            tab = await stack.enter_async_context(opened(free_port))
            await tab.until("document.querySelectorAll('#rows .line').length === 2")
            await until(lambda: first.summary().scored > 100)
            assert tab.problems == []
        await tab.shows("#link", "gateway unreachable, retrying")
        async with serving(new_gateway(mosquitto.settings, page_port=free_port)) as other:
            await until(lambda: other.summary().scored)
            await tab.live()
            await tab.until("!document.querySelector('#confusion-scroll').hidden")
            # The new gateway began anew, and so does what the page shows of it.
            shown = sum(map(sum, await confusion(tab)))
            assert 0 < shown <= other.summary().scored
        # A browser says itself that nobody answered; that is no error of the page.
        assert [one for one in tab.problems if "Failed to load resource" not in one] == []


async def test_a_line_that_stalls(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with (
        serving(gateway),
        Stalling(gateway.page_port) as line,
        streaming(synthetic(wrist6, mosquitto.settings, 1)),
        opened(line.settings.port) as tab,
    ):
        await tab.live()
        await tab.page.wait_for_selector("#rows .line")
        line.flowing.clear()
        await tab.shows("#link", "gateway unreachable, retrying")
        assert await tab.page.is_visible("#banner")
        assert await tab.page.evaluate("getComputedStyle(document.querySelector('main')).opacity") == "0.5"
        assert await tab.text("#bits") != "–"  # old values stay in sight
        line.flowing.set()
        await tab.live()
        assert await tab.page.is_hidden("#banner")
        assert tab.problems == []


class Stalling(Proxy):
    """A line on which nothing moves while ``flowing`` is not set, and nothing is lost."""

    def __init__(self, target):
        super().__init__(target)
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def _copy(self, reader, writer, record):
        try:
            while data := await reader.read(65536):
                await self.flowing.wait()
                record += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()


async def test_strings_from_the_network_are_text(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with (
        serving(gateway),
        streaming(synthetic(wrist6, mosquitto.settings, 1)) as fleet,
        opened(gateway.page_port, "#device=%3Cimg%20src%3Dx%3E") as tab,
    ):
        await tab.shows("#detail-name", "<img src=x>")
        await tab.page.keyboard.press("Escape")
        online = fleet.publishers[0].device.status()
        hostile = Status(**online.model_dump() | {"sensor": HOSTILE, "error": HOSTILE, "bridge": HOSTILE})
        async with Listener(mosquitto.settings, "nothing") as other:
            other.connection.publish(topic("wearable-01", Kind.STATUS), hostile.to_json(), qos=1)
            await tab.page.click("#rows .line")
            await tab.shows("#detail-error", HOSTILE)
            camera = Status(state="online", camera=True, error=HOSTILE)
            other.connection.publish(topic("camera-01", Kind.STATUS), camera.to_json(), qos=1)
            await tab.shows(".camera .banner", HOSTILE)
        assert f"{HOSTILE} · " in await tab.text("#detail-what")
        assert await tab.page.query_selector_all("img[src=x]") == []
        assert await tab.page.evaluate("window.hacked") is None
        assert tab.problems == []


@pytest.mark.parametrize("width", [390, 1440, 2560])
async def test_a_camera_has_room_for_what_is_wrong_with_it(mosquitto, width):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), opened(gateway.page_port, viewport={"width": width, "height": 1000}) as tab:
        async with Listener(mosquitto.settings, "nothing") as other:
            camera = Status(state="online", camera=True, error="/data/" + 60 * "x" + ".dng: is it cut off?")
            other.connection.publish(topic("camera-01", Kind.STATUS), camera.to_json(), qos=1)
            await tab.shows(".camera .banner", camera.error)
        taken, given, needed = await tab.page.evaluate(
            "(() => { const box = document.querySelector('.camera .banner'), style = getComputedStyle(box);"
            " const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);"
            " return [padding, box.clientWidth, box.scrollWidth]; })()"
        )
        assert taken < 0.2 * given
        assert needed <= given


async def test_with_the_keyboard_alone(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with (
        serving(gateway),
        streaming(synthetic(wrist6, mosquitto.settings, 3)),
        opened(gateway.page_port, reduced_motion="reduce") as tab,
    ):
        await tab.until("document.querySelectorAll('#rows .line').length === 3")
        press = tab.page.keyboard.press
        await press("Tab")
        assert await tab.page.evaluate("document.activeElement.className") == "skip"
        for _ in range(20):
            if await tab.page.evaluate("document.activeElement.id") == "grid":
                break
            await press("Tab")
        else:
            pytest.fail("Tab never came to the list")
        await press("ArrowDown")
        await press("ArrowDown")
        active = await tab.page.get_attribute("#grid", "aria-activedescendant")
        assert await tab.page.get_attribute(f"#{active}", "data-device") == "wearable-02"
        await press("Enter")
        await tab.shows("#detail-name", "wearable-02")
        assert tab.page.url.endswith("#device=wearable-02")
        assert await tab.page.evaluate("document.activeElement.id") == "detail-name"
        await press("Escape")
        await tab.until("!document.querySelector('#detail').open && document.activeElement.id === 'grid'")
        await tab.until("location.hash === ''")
        assert tab.problems == []


async def test_the_theme_is_the_systems_until_one_is_chosen(mosquitto):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), opened(gateway.page_port, color_scheme="dark") as tab:
        grounds = "getComputedStyle(document.body).backgroundColor"
        dark = await tab.page.evaluate(grounds)
        await tab.page.emulate_media(color_scheme="light")
        await tab.until("document.documentElement.dataset.theme === 'light'")
        light = await tab.page.evaluate(grounds)
        assert dark != light
        await tab.page.click("#theme")
        assert await tab.page.evaluate(grounds) == dark
        assert await tab.page.get_attribute("#theme", "aria-label") == "Switch to the light theme"
        await tab.page.reload()
        await tab.page.emulate_media(color_scheme="dark")
        await tab.page.emulate_media(color_scheme="light")
        assert await tab.page.evaluate(grounds) == dark, "it was chosen"
        assert tab.problems == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 1440), ("light", 360)])
async def test_it_is_accessible(mosquitto, wrist6, scheme, width):
    axe = NODE_MODULES / "axe-core" / "axe.min.js"
    need(axe.exists(), "axe-core (npm ci)")
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), streaming(synthetic(wrist6, mosquitto.settings, 2)):
        look = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "reduced_motion": "reduce"}
        # The policy of the page allows no script of others, not even this one.
        async with opened(gateway.page_port, bypass_csp=True, **look) as tab:
            await tab.until("document.querySelectorAll('#rows .line').length === 2")
            await until(lambda: gateway.summary().scored)
            await tab.until("!document.querySelector('#confusion-scroll').hidden")
            assert await tab.page.evaluate("document.documentElement.scrollWidth") <= width
            await tab.page.add_script_tag(path=axe)
            assert await violations(tab) == []
            await tab.page.click("#rows .line")
            await tab.shows("#detail-name", "wearable-01")
            assert await violations(tab) == []


async def violations(tab):
    """What axe-core finds, each with the elements."""
    found = await tab.page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]


async def test_somebody_with_the_token_labels(mosquitto, wrist6, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    gateway = new_gateway(mosquitto.settings, page_port=0, page_token_file=tmp_path / "token")
    unlabelled = synthetic(wrist6, mosquitto.settings, 1, speed=1.0, labels=False)
    async with serving(gateway), streaming(unlabelled), Listener(mosquitto.settings, every(Kind.LABEL)) as heard:
        async with opened(gateway.page_port, "#device=wearable-01") as tab:
            await tab.until("!document.querySelector('#label-begin').disabled")
            await tab.shows("#detail-truth", "no label")
            await tab.page.select_option("#label-activity", wrist6.labels[1])
            await tab.page.click("#label-begin")
            await tab.page.fill("#token", "not the token at all")
            await tab.page.keyboard.press("Enter")
            await tab.shows("#actions-note", "The gateway refused this token. Type it again.")
            await tab.page.fill("#token", TOKEN)
            await tab.page.keyboard.press("Enter")
            await tab.shows("#label-begin", f"Labelling: {words(wrist6.labels[1])}")
            await until(lambda: heard.heard)
            label = Label.parse(heard.heard[0].payload)
            assert (heard.heard[0].topic, label.activity) == (topic("wearable-01", Kind.LABEL), wrist6.labels[1])
            await tab.shows("#detail-truth", f"truth: {words(wrist6.labels[1])}")
            # The token is asked for once, and outlives neither the tab nor the page's address bar.
            await tab.page.click("#raw")
            await tab.until("document.querySelector('.signal .dotted')?.parentElement.hidden === false")
            assert await tab.page.is_hidden("#token-form")
            assert TOKEN not in await tab.page.evaluate("JSON.stringify(localStorage) + document.cookie + location")
            await tab.page.click("#label-end")
            await tab.shows("#label-begin", "Label")
            assert await tab.page.is_disabled("#label-end")
        assert [one for one in tab.problems if "401" not in one] == []


async def test_without_a_token_it_is_read_only(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with (
        serving(gateway),
        streaming(synthetic(wrist6, mosquitto.settings, 1)),
        opened(gateway.page_port, "#device=wearable-01") as tab,
    ):
        await tab.page.wait_for_selector(".signal canvas")
        assert "--page-token-file" in await tab.text("#actions-note")
        for control in ("#label-activity", "#label-begin", "#label-end", "#raw"):
            assert await tab.page.is_disabled(control)
        assert tab.problems == []


async def test_a_thousand_devices(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), chromium() as browser:
        device = synthetic(wrist6, mosquitto.settings, 1).publishers[0].device
        names = [f"device-{number:04}" for number in range(1000)]
        for name in names:
            gateway.pipeline.feed(topic(name, Kind.STATUS), device.status().to_json(), time.time_ns())
        feeding = asyncio.create_task(feed(gateway, device, names))
        await until(lambda: gateway.summary().streaming == len(names))
        await browser.start_tracing(categories=["toplevel", "blink.user_timing"])  # from the first state on
        async with Tab.of(browser, gateway.page_port) as tab:
            await tab.shows("#devices-count", "1\u202f000 devices")
            await tab.until("document.querySelector('#streaming').textContent === '1\u202f000'")
            await tab.until("performance.now() > 5000")
            for at in (20_000, 44_000, 7_000, 0):
                await tab.page.evaluate("(top) => { document.querySelector('#grid').scrollTop = top }", at)
                assert await tab.page.evaluate("document.querySelectorAll('#rows .line').length") < 40
                await tab.until("document.querySelector('#rows .line').getBoundingClientRect().height > 0")
            await tab.page.fill("#search", "0999")
            await tab.shows("#devices-count", "1 of 1\u202f000 devices")
            assert (await cells(tab, "device-0999"))["device"] == "device-0999"
            await tab.page.evaluate("performance.mark('this page')")
            trace = json.loads(await browser.stop_tracing())
            busy = busy_ms(trace)
            long = await tab.page.evaluate("longTasks")
            note("longest tasks, ms of CPU:", busy[-5:], "long tasks by the clock:", [round(one) for one in long])
            assert len(busy) > 100
            assert busy[-1] < LONG_TASK_MS
            assert await tab.page.evaluate("shifted") < 0.1
            assert tab.problems == []
        feeding.cancel()


async def feed(gateway, device, names):
    """Each device sends what one wearer sends, every four seconds: not over the network, which is another test's."""
    while True:
        emission = device.next_packet()
        for at in range(0, len(names), 50):
            for name in names[at : at + 50]:
                gateway.pipeline.feed(topic(name, Kind.IMU), emission.packet, time.time_ns())
            await asyncio.sleep(0.2)


def busy_ms(trace):
    """Of each task of the page's main thread the CPU time, ascending: other programs of this machine have no part."""
    events = trace["traceEvents"]
    [ours] = {(one["pid"], one["tid"]) for one in events if one["name"] == "this page"}
    tasks = [one for one in events if one["name"].endswith("RunTask") and "tdur" in one]
    return sorted(one["tdur"] / 1000 for one in tasks if (one["pid"], one["tid"]) == ours)
