"""The live page's server over HTTP: a real broker, emulated wearables, and viewers that are late, slow or too many."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path

import pytest
from live_client import close, connect, post, request, viewing
from stack import (
    Listener,
    all_answered,
    fetch_metrics,
    new_gateway,
    patient_devices,
    serving,
    streaming,
    synthetic,
    until,
    wrist6,
)

from gateway.live import app, history
from gateway.live.guard import Hosts
from gateway.live.page import FAULTY_TICKS
from gateway.live.server import PageServerError
from gateway.live.streams import KEPT, MAX_VIEWERS
from gateway.service import Gateway, GatewaySettings
from protocol.broker_settings import BrokerSettings
from protocol.topics import Kind, every

__all__ = ["patient_devices", "wrist6"]

TOKEN = "0123456789abcdef0123"  # noqa: S105 - of a test
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)


def differences(viewer, state):
    """Where what a viewer has put together differs from the whole."""
    rows = {row["device"]: row for row in state["devices"]}
    keys = {"summary", "models", "cameras", "camera_scores", "drift", "broker", "version", "read_only"}
    return {key for key in keys if viewer.state[key] != state[key]} | {
        f"{name} {key}" for name, row in rows.items() for key in row if viewer.rows[name][key] != row[key]
    }


async def agreed(viewer, port):
    """The whole, once a viewer has put together the same from what changed."""
    async with asyncio.timeout(30):
        while True:
            state = (await request(port, "/api/state")).json
            if not differences(viewer, state):
                return state
            await asyncio.sleep(0.05)


async def test_values_are_those_of_the_metrics_and_of_the_messages(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0, metrics_port=0, per_device=True)
    async with (
        serving(gateway),
        Listener(mosquitto.settings, every(Kind.ACTIVITY)) as listener,
        viewing(gateway.page_port) as viewer,
    ):
        async with streaming(synthetic(wrist6, mosquitto.settings, 3)) as fleet:
            await viewer.until(lambda: len(viewer.rows) == 3 and viewer.state["summary"]["scored"] > 20)
        await until(lambda: gateway.summary().packets == fleet.packets_made)
        await all_answered(gateway)
        await until(lambda: len(listener.activities()) == gateway.summary().answers)
        # Windows wait a while for their last label, and metrics are those of the last sweep.
        await until(lambda: not any(device.labels.waiting for device in gateway.pipeline.devices))
        await until(lambda: gateway.pipeline.scores == gateway.summary().scores)
        metrics = await fetch_metrics(gateway)
        state = await agreed(viewer, gateway.page_port)
    reference = wrist6.reference
    model, summary = state["models"][reference], state["summary"]
    assert metrics[f'gammawear_live_accuracy_ratio{{model="{reference}",span="total"}}'] == model["accuracy"]
    assert metrics[f'gammawear_live_macro_f1_ratio{{model="{reference}",span="rolling"}}'] == model["rolling_macro_f1"]
    assert metrics[f'gammawear_scored_windows_total{{model="{reference}"}}'] == model["windows"]
    assert sum(map(sum, model["confusion"])) == model["windows"]
    right = sum(model["confusion"][n][n] for n in range(len(model["labels"])))
    assert right / model["windows"] == pytest.approx(model["accuracy"])
    assert metrics["gammawear_accepted_packets_total"] == summary["packets"] == fleet.packets_made
    sizes = state["bandwidth"]["bytes"]
    assert metrics["gammawear_received_packet_bytes_total"] == sizes["packet"]
    assert metrics['gammawear_received_mqtt_bytes_total{form="topic"}'] == sizes["mqtt"]
    assert metrics['gammawear_equivalent_bytes_total{encoding="json"}'] == sizes["json"]
    assert metrics['gammawear_bytes_per_value{level="packet"}'] * 8 == pytest.approx(summary["bits_per_value"])
    for row in state["devices"]:
        name, last = row["device"], listener.activities(row["device"])[-1]
        assert metrics[f'gammawear_device_packets_total{{device="{name}"}}'] == row["packets"]
        assert (row["activity"], row["model"]) == (last.activity, last.model)
        assert row["probability"] == pytest.approx(last.probability, abs=1e-4)
        assert row["confidence"][-1][0] <= last.to_ms
        assert row["labelled"]
        assert row["source"] == "synthetic"
        assert 0 < row["radio_ua"] < row["radio_raw12_ua"]
        assert row["whole_ua"] == row["radio_ua"], "the generic part's own current is not known"


async def test_opened_late_it_shows_what_was(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway):
        async with streaming(synthetic(wrist6, mosquitto.settings, 2)):
            await until(lambda: gateway.summary().scored > 50)
            rows = []
            while not rows or min(len(row["confidence"]) for row in rows) < 3:
                rows = (await request(gateway.page_port, "/api/state")).json["devices"]
            async with viewing(gateway.page_port) as viewer:
                await viewer.until(lambda: viewer.state)
                assert viewer.state["summary"]["scored"] > 50
                assert min(len(row["confidence"]) for row in viewer.rows.values()) >= 3
                assert len(viewer.state["bandwidth"]["history"]["mqtt"]) >= 1
                await viewer.until(lambda: viewer.counts.get("update", 0) >= 10)
                assert viewer.counts["state"] == 1
        async with viewing(gateway.page_port) as viewer:  # they have gone, what they did has not
            await viewer.until(lambda: [row["online"] for row in viewer.rows.values()] == [False, False])


async def test_a_broker_that_is_killed_and_comes_back(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with (
        serving(gateway),
        streaming(synthetic(wrist6, mosquitto.settings, 2)),
        viewing(gateway.page_port) as viewer,
    ):
        await viewer.until(lambda: viewer.state.get("broker") and len(viewer.rows) == 2)
        assert (await request(gateway.page_port, "/healthz")).status == 200
        await mosquitto.stop(signal.SIGKILL)
        await viewer.until(lambda: viewer.state["broker"] is False)
        assert (await request(gateway.page_port, "/healthz")).status == 503
        before = viewer.state["summary"]["packets"]
        await mosquitto.start()
        await viewer.until(lambda: viewer.state["broker"] and viewer.state["summary"]["packets"] > before + 10)
        assert viewer.counts["state"] == 1, "the page itself never broke"


async def test_a_gateway_that_ends_ends_its_streams(mosquitto, wrist6):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with contextlib.AsyncExitStack() as stack:
        async with serving(gateway), streaming(synthetic(wrist6, mosquitto.settings, 1)):
            viewer = await stack.enter_async_context(viewing(gateway.page_port))
            await viewer.until(lambda: viewer.rows)
        assert gateway.page_port is None
        await until(lambda: viewer.ended)


async def test_a_viewer_that_falls_behind_gets_the_whole_again(mosquitto):
    """It reads nothing while more goes by than sockets hold and than changes are kept."""
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), viewing(gateway.page_port) as quick:
        await quick.until(lambda: quick.counts.get("update", 0) >= 1)
        slow = await connect(gateway.page_port)
        assert gateway.page is not None
        feed = gateway.page._state.feed
        for n in range(3 * KEPT):
            feed.publish(b": " + 2**20 * b"x" + b"\n\n")
            await quick.until(lambda n=n: quick.counts["update"] > 2 + n)
        following = asyncio.create_task(slow.follow())
        await until(lambda: slow.counts.get("state", 0) == 2)
        await until(lambda: slow.counts.get("update", 0) >= 5)
        assert quick.counts["state"] == 1, "nobody else has to wait"
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await close(slow.writer)


async def test_there_is_no_place_for_the_65th_viewer_until_one_goes(mosquitto):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway), contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(viewing(gateway.page_port))
        for _ in range(MAX_VIEWERS - 1):
            await stack.enter_async_context(viewing(gateway.page_port))
        await first.until(lambda: first.counts.get("update", 0) >= 2)
        refused = await request(gateway.page_port, "/api/events")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert "64" in refused.json["error"]
        assert refused.headers["content-security-policy"] == POLICY
        assert (await request(gateway.page_port, "/api/state")).status == 200, "the rest is still there"
        first.writer.close()
        page = gateway.page
        assert page is not None
        await until(lambda: len(page.viewers) < MAX_VIEWERS)
        async with viewing(gateway.page_port) as late:
            await late.until(lambda: late.state)


async def test_every_answer_has_its_headers(mosquitto):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway):
        for path, method, status in (
            ("/", "GET", 200),
            ("/static/app.js", "GET", 200),
            ("/static/style.css", "HEAD", 200),
            ("/healthz", "GET", 200),
            ("/api/state", "GET", 200),
            ("/api/events", "POST", 405),
            ("/api/events?device=a%2Fb", "GET", 400),
            ("/api/state", "DELETE", 405),
            ("/api/devices/w1/label", "GET", 405),
            ("/cameras/none.jpg", "GET", 404),
            ("/metrics", "GET", 404),
            ("/static/", "GET", 404),
            ("/static/../app.py", "GET", 404),
            ("/static/..%2fapp.py", "GET", 404),
            ("/static/%2e%2e/%2e%2e/service.py", "GET", 404),
            ("/static//etc/passwd", "GET", 404),
            ("/static/vendor", "GET", 404),
            ("/static/%00", "GET", 404),
            ("/static/app.js%00", "GET", 404),
            (f"/static/{300 * 'x'}.js", "GET", 404),
            ("/nothing", "GET", 404),
        ):
            answer = await request(gateway.page_port, path, method=method)
            assert answer.status == status, (method, path)
            assert answer.headers["content-security-policy"] == POLICY, path
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == (
                "no-cache" if status == 200 and path[1:7] in ("", "static") else "no-store"
            )
            assert "server" not in answer.headers
        script = await request(gateway.page_port, "/static/app.js")
        assert script.headers["content-type"].startswith("text/javascript")
        for host in (
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "",
            "[::2]",
            "127.0.0.1@evil.example:1",
        ):
            answer = await request(gateway.page_port, "/api/state", headers={"Host": host})
            assert (answer.status, answer.headers["content-security-policy"]) == (403, POLICY), host
            assert b"devices" not in answer.body
        for host in ("localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:9465"):
            assert (await request(gateway.page_port, "/api/state", headers={"Host": host})).status == 200, host


async def test_no_secret_leaves_the_gateway(mosquitto, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    broker = BrokerSettings.model_validate(
        {**mosquitto.settings.model_dump(), "username": "somebody-secret", "password": "hunter2-secret"}
    )
    gateway = Gateway(GatewaySettings(broker=broker, page_port=0, page_token_file=tmp_path / "token"))
    async with serving(gateway):
        state = await request(gateway.page_port, "/api/state")
        assert state.json["read_only"] is False
        assert b"secret" not in state.body
        assert TOKEN.encode() not in state.body
        assert str(tmp_path).encode() not in state.body


async def test_an_address_that_is_taken_is_said(mosquitto, free_port):
    async with serving(new_gateway(mosquitto.settings, page_port=free_port)):
        second = new_gateway(mosquitto.settings, page_port=free_port, client_id="second")
        with pytest.raises(PageServerError, match=f"127.0.0.1:{free_port}: Address already in use; choose another"):
            await second.run()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no token can be read"), (b"short", "16 or more"), (b"\xff" * 20, "no token"), (b"a b" * 20, "16 or more")],
)
async def test_a_token_that_is_none_is_said(mosquitto, tmp_path: Path, content, said):
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    gateway = new_gateway(mosquitto.settings, page_port=0, page_token_file=tmp_path / "token")
    with pytest.raises(PageServerError, match=said):
        await gateway.run()


async def test_what_is_bound_to_a_network_shows_no_pictures_and_takes_no_name(mosquitto):
    """An address cannot be rebound, a name can."""
    gateway = new_gateway(mosquitto.settings, page_port=0, page_address="0.0.0.0")  # noqa: S104 - what is tested
    async with serving(gateway):
        for host, status in (
            ("192.0.2.1:9465", 200),
            ("[2001:db8::1]", 200),
            ("localhost", 200),
            ("gateway.example", 403),
            ("192.0.2.1.gateway.example", 403),
            ("", 403),
            ("[", 403),
        ):
            answer = await request(gateway.page_port, "/api/state", headers={"Host": host})
            assert answer.status == status, host
            if status == 200:
                assert json.loads(answer.body)["cameras"] == []


async def test_names_that_are_given_are_answered_to(mosquitto, tmp_path, caplog):
    (tmp_path / "token").write_text(TOKEN)
    open_page = {"page_port": 0, "page_address": "0.0.0.0", "page_token_file": tmp_path / "token"}  # noqa: S104
    async with serving(new_gateway(mosquitto.settings, **open_page)):
        assert "with --page-host" in caplog.text
    caplog.clear()
    gateway = new_gateway(mosquitto.settings, **open_page, page_hosts=("Gateway.example",))
    async with serving(gateway):
        assert "--page-host" not in caplog.text
        for host, status in (
            ("gateway.example", 200),
            ("192.0.2.1", 403),
            ("127.0.0.1", 200),
            ("a.gateway.example", 403),
        ):
            assert (await request(gateway.page_port, "/", headers={"Host": host})).status == status, host
        for origin, status in (
            ("https://gateway.example", 404),
            ("http://gateway.example:8443", 404),
            ("https://localhost", 403),
            ("ftp://gateway.example", 403),
            ("https://gateway.example.evil.example", 403),
            ("https://[", 403),
        ):
            answer = await post(
                gateway.page_port, "/api/devices/nobody/label", {"activity": None}, TOKEN, Origin=origin
            )
            assert answer.status == status, origin


@pytest.mark.parametrize("name", ["", "https://gateway.example", "gateway.example:443", "a b", "x/y", "*.example"])
async def test_a_page_host_that_is_none_is_said(mosquitto, name):
    with pytest.raises(PageServerError, match="--page-host takes a name"):
        await new_gateway(mosquitto.settings, page_port=0, page_hosts=(name,)).run()


async def test_where_it_listens_is_answered_to():
    assert Hosts("192.0.2.7").answer_to("192.0.2.7:9465")
    assert Hosts("Gateway.lan").answer_to("gateway.lan")
    assert Hosts("192.0.2.7", ["fd00::1"]).answer_to("192.0.2.7")
    assert Hosts("192.0.2.7", ["[fd00:0::1]"]).answer_to("[fd00::1]:80")
    assert not Hosts("0.0.0.0", ["a.example"]).answer_to("0.0.0.0")  # noqa: S104 - what is tested
    assert not Hosts("127.0.0.1").answer_to("192.0.2.7")


async def test_an_installation_of_links_serves_its_files(mosquitto, tmp_path, monkeypatch):
    (tmp_path / "linked").symlink_to(app.STATIC)
    monkeypatch.setattr(app, "STATIC", tmp_path / "linked")
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with serving(gateway):
        for path in ("/", "/static/app.js", "/static/vendor/uPlot.min.css"):
            assert (await request(gateway.page_port, path)).status == 200, path


async def test_a_tick_that_fails_ends_nothing(mosquitto, wrist6, monkeypatch, caplog):
    gateway = new_gateway(mosquitto.settings, page_port=0)
    async with (
        serving(gateway),
        streaming(synthetic(wrist6, mosquitto.settings, 1)),
        viewing(gateway.page_port) as viewer,
    ):
        await viewer.until(lambda: viewer.rows)
        assert (await request(gateway.page_port, "/healthz")).status == 200
        failed = []

        def fail(*_: object) -> None:
            failed.append(1)
            raise ZeroDivisionError("of this test")

        with monkeypatch.context() as patch:
            patch.setattr(history.BandwidthHistory, "note", fail)
            await until(lambda: len(failed) >= 3)
            answer = await request(gateway.page_port, "/healthz")
            assert (answer.status, b"log" in answer.body) == (503, True)
            answers = gateway.summary().answers
            await until(lambda: gateway.summary().answers > answers)
        updates = viewer.counts["update"]
        await viewer.until(lambda: viewer.counts["update"] > updates + FAULTY_TICKS)
        assert (await request(gateway.page_port, "/healthz")).status == 200
    assert caplog.text.count("ZeroDivisionError: of this test") == 1
