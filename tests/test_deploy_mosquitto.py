"""The broker as we ship it for a network: who gets in, and our own devices, gateway and cameras on it."""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
from pathlib import Path

import pytest
from camera_stack import image_codebook, save_untrained, scene_node
from proxy import PATIENCE_S, running
from secure_site import CAMERA, DEPLOY, ETC, OTHER, STRAP, WEARABLE, Site, certificates, heard_until_end, site
from stack import Listener, all_answered, new_gateway, serving, streaming, synthetic, until

from device_emulator.camera.publisher import CameraPublisher
from device_emulator.device import Device, shared_encoder
from device_emulator.publisher import DevicePublisher
from gammawear.wearables import synthetic_sources
from models.bundle import SHIPPED, load_bundle
from protocol.broker_settings import BrokerSettings, Message
from protocol.connection import ConnectError, Connection, Received
from protocol.messages import Config, Status
from protocol.topics import Kind, every, parse, topic

__all__ = ["certificates", "site"]


async def refusal(settings: BrokerSettings, name: str = "stranger") -> str:
    """What :meth:`Connection.run` says when the broker does not let us in."""
    with pytest.raises(ConnectError) as caught:
        await asyncio.wait_for(Connection(settings, name).run(), PATIENCE_S)
    return str(caught.value)


def change_password(file: Path, account: str, password: str) -> None:
    """It asks twice, and takes the answers from a pipe as well."""
    subprocess.run(
        ["mosquitto_passwd", file, account], input=f"{password}\n" * 2, text=True, check=True, capture_output=True
    )


async def test_devices_bridge_camera_gateway_operator_and_viewer_over_tls(site: Site, tmp_path: Path) -> None:
    """Nobody needs more than the list grants: not one message is refused."""
    detectors = tmp_path / "detectors"
    save_untrained(detectors)
    bundle = load_bundle("wrist6")
    gateway = new_gateway(site.settings("gateway"), folders=(SHIPPED, detectors))
    fleet = synthetic(bundle, site.settings(WEARABLE), count=1, prefix="wrist")
    camera = CameraPublisher(scene_node(image_codebook(), fps=5.0), site.settings(CAMERA), qos=1)

    # A bridge, as far as the broker sees it: one connection for itself and for a strap.
    configs: list[Received] = []
    offline = Status(state="offline", bridge="bridge").to_json()
    bridge = Connection(
        site.settings("bridge"),
        "gammawear-bridge",
        will=Message("gammawear/v1/bridge/status", offline, 1, retain=True),
        subscriptions=((every(Kind.CONFIG), 1),),
        on_message=configs.append,
    )
    source = synthetic_sources(bundle, bundle.sensor, count=1, seed=2, rate_hz=None)[0]
    strap = Device(STRAP, source, shared_encoder(bundle.codebook, source.sensor))
    operator = Connection(site.settings("operator"), "operator")
    viewer = Listener(site.settings("viewer"), every(Kind.ACTIVITY), every(Kind.DETECTIONS), every(Kind.STATUS))

    def statuses(device: str) -> list[Status]:
        return [Status.parse(one.payload) for one in viewer.heard if one.topic == topic(device, Kind.STATUS)]

    async with serving(gateway), viewer, running(bridge, operator), streaming(fleet):
        filming = asyncio.create_task(camera.run())
        bridge.publish("gammawear/v1/bridge/status", Status(state="online", bridge="bridge").to_json(), 1, retain=True)
        bridge.publish(topic(STRAP, Kind.STATUS), strap.status().model_copy(update={"bridge": "bridge"}).to_json(), 1)
        for _ in range(20):
            emission = strap.next_packet()
            assert emission is not None
            bridge.publish(topic(STRAP, Kind.IMU), emission.packet, 1)
        await until(lambda: viewer.activities(WEARABLE) and viewer.activities(STRAP))
        await until(lambda: any(parse(one.topic) == (CAMERA, Kind.DETECTIONS) for one in viewer.heard))
        assert gateway.pipeline.bridges["bridge"].state == "online"

        config = Config(axes=(2, -1, 3)).to_json()
        operator.publish(topic(WEARABLE, Kind.CONFIG), config, 1, retain=True)
        operator.publish(topic(STRAP, Kind.CONFIG), config, 1, retain=True)
        await until(lambda: statuses(WEARABLE)[-1].axes == (2, -1, 3))
        await until(lambda: configs)
        assert [one.topic for one in configs] == [topic(STRAP, Kind.CONFIG)], "another's is none of its business"

        await camera.stop(timeout=PATIENCE_S)
        await filming
        await all_answered(gateway)
        refused = [one.dropped for one in (bridge, operator, viewer.connection, camera.connection)]
        refused += [one.connection.dropped for one in fleet.publishers]
        refused.append(gateway._subscriber.connection.dropped)
        assert not any(one.total() for one in refused), refused
        assert fleet.publishers[0].connection.protocol_in_use == "5"
    assert gateway.pipeline.refusals.messages.total() == 0


# -- getting in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_who_has_no_account_does_not_get_in(site: Site, protocol: str) -> None:
    for strangers in (
        site.settings(WEARABLE, "wrong", protocol=protocol),
        site.settings("nobody", protocol=protocol),
        site.settings(WEARABLE, password=f"secret of {OTHER}", protocol=protocol),
        site.settings(WEARABLE, protocol=protocol).model_copy(update={"username": None, "password": None}),
        site.settings(WEARABLE, protocol=protocol).model_copy(update={"password": None}),
    ):
        said = await refusal(strangers)
        assert "not authorized" in said
        assert "check username, password" in said
        assert "secret" not in said


async def test_without_the_ca_or_for_another_name_no_client_trusts_the_broker(site: Site) -> None:
    said = await refusal(site.settings(WEARABLE, ca_file=None))
    assert "certificate is not trusted" in said
    assert "name its CA in ca_file" in said
    said = await refusal(site.settings(WEARABLE, host="localhost"))
    assert "not valid for 'localhost'" in said


async def test_plain_tcp_gets_no_answer_on_the_tls_port(site: Site) -> None:
    plain = site.settings(WEARABLE, tls=False, ca_file=None)
    connection = Connection(plain, WEARABLE)
    task = asyncio.create_task(connection.run())
    await until(lambda: connection.last_error)
    assert "closed the connection instead of answering CONNECT" in str(connection.last_error)
    assert connection.sent == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.certificates / "ca.crt")
    _, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=context)
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    writer.close()
    context.set_ciphers("ALL:@SECLEVEL=0")  # or this side would refuse it already
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
        await asyncio.open_connection("127.0.0.1", site.port, ssl=context)


async def test_a_changed_password_ends_the_old_connection_and_no_other(site: Site) -> None:
    """As docs/security.md has it; and a certificate is renewed the same way."""
    ends: list[str] = []
    device = Connection(site.settings(WEARABLE), "x", on_disconnected=ends.append)
    other = Connection(site.settings(OTHER), "y", on_disconnected=ends.append)
    task = asyncio.create_task(device.run())
    await device.wait_connected(PATIENCE_S)
    async with running(other):
        change_password(site.folder / "passwords", WEARABLE, "a new one")
        site.reload()
        await until(lambda: ends)
        await until(lambda: "not authorized" in str(device.last_error))
        assert not task.done(), "it goes on asking: somebody will give it the new one"
        assert (len(ends), other.reconnects, other.connected) == (1, 0, True)
        async with running(Connection(site.settings(WEARABLE, "a new one"), "x")):
            pass
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await refusal(site.settings(WEARABLE))


# -- what our own code makes of a refusal -----------------------------------------------------------------------------


async def test_a_device_with_the_account_of_another_says_so_once_and_loses_its_packets(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = load_bundle("wrist6")
    (publisher,) = synthetic(bundle, site.settings(WEARABLE), count=1, prefix="ghost").publishers
    assert isinstance(publisher, DevicePublisher)
    link = publisher.connection
    async with site.watcher() as watcher:
        task = asyncio.create_task(publisher.run())
        await until(lambda: publisher.packets_published >= 10)
        await publisher.stop(timeout=PATIENCE_S)
        await task
        assert await heard_until_end(watcher) == {}
    assert (link.unacked, link.queued, link.resent, link.reconnects) == (0, 0, 0, 0)
    assert link.dropped["refused"] == link.acked == link.sent > publisher.packets_made
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([one for one in warnings if "refused a message on gammawear/v1/ghost-01/" in one.message]) == 1


async def test_a_gateway_with_the_account_of_a_viewer_goes_on_and_says_why(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = new_gateway(site.settings("viewer"))
    async with site.watcher() as watcher, serving(gateway):
        link = gateway._subscriber.connection
        await until(lambda: link.dropped["refused"])
        assert link.connected
        assert await heard_until_end(watcher) == {}
    assert "refused a message on gammawear/v1/gateway/status" in caplog.text


def test_nothing_in_the_deployment_is_a_secret() -> None:
    for path in DEPLOY.iterdir():
        assert path.suffix not in {".key", ".crt"}
        assert path.name not in {"passwords", "accounts"}
        assert "PRIVATE KEY" not in path.read_text(encoding="utf-8")


def test_the_secure_listener_says_itself_what_it_asks_for() -> None:
    """Settings of rights count for the listener that they follow; above it they would be ignored."""
    lines = [line for line in (DEPLOY / "secure.conf").read_text(encoding="utf-8").splitlines() if line[:1].isalpha()]
    assert lines[0] == "listener 8883"
    assert {"allow_anonymous false", f"password_file {ETC}/passwords", f"acl_file {ETC}/acl"} < set(lines)
    assert "per_listener_settings true" in (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8").splitlines()
