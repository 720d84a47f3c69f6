"""The broker as we ship it for a network: TLS, passwords, access rights; with a real mosquitto and the shipped files.

The two listeners run together, as shipped. What the secure one let through is watched on the other, which is loopback's
and without rights.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import signal
import ssl
import stat
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import pytest
from camera_stack import image_codebook, save_untrained, scene_node
from conftest import Mosquitto
from needed import need
from proxy import PATIENCE_S, running
from pydantic import SecretStr
from stack import Listener, all_answered, new_gateway, serving, streaming, synthetic, until

from device_emulator.camera.publisher import CameraPublisher
from device_emulator.device import Device, shared_encoder
from device_emulator.publisher import DevicePublisher
from gammawear.broker import free_port
from gammawear.wearables import synthetic_sources
from models.bundle import SHIPPED, load_bundle
from protocol.broker_settings import BrokerSettings, Message
from protocol.connection import ConnectError, Connection, Received
from protocol.messages import Config, Status
from protocol.topics import Kind, every, parse, topic

DEPLOY = Path(__file__).parents[1] / "deploy" / "mosquitto"
SCRIPT = DEPLOY / "make-certificates.sh"
ETC = "/etc/mosquitto"

WEARABLE, OTHER, CAMERA, STRAP = "wrist-01", "wrist-02", "camera-01", "strap-1"
ACCOUNTS = ("gateway", "operator", "viewer", "bridge", WEARABLE, OTHER, CAMERA)
IDS = (*ACCOUNTS, STRAP, "stranger")
DATA = (Kind.IMU, Kind.STATUS, Kind.LABEL, Kind.FRAME, Kind.TRUTH)
ANSWERS = (Kind.ACTIVITY, Kind.DETECTIONS)

Topics = set[str]


def topics(ids: tuple[str, ...], kinds: tuple[Kind, ...], *, but: str = "") -> Topics:
    return {topic(one, kind) for one in ids for kind in kinds if one != but}


EVERYTHING = topics(IDS, tuple(Kind))
WRITES = {
    "gateway": topics(IDS, ANSWERS) | {"gammawear/v1/gateway/status"},
    "operator": topics(IDS, (Kind.CONFIG,), but="operator"),
    "viewer": set(),
    "bridge": topics((STRAP,), (Kind.IMU, Kind.STATUS, Kind.LABEL)) | {"gammawear/v1/bridge/status"},
    **{one: topics((one,), DATA) for one in (WEARABLE, OTHER, CAMERA)},
}
READS = {
    "gateway": topics(IDS, DATA, but="gateway") | {"gammawear/v1/gateway/status"},
    "operator": topics(IDS, (Kind.CONFIG, Kind.STATUS), but="operator"),
    "viewer": topics(IDS, (*ANSWERS, Kind.STATUS), but="viewer"),
    "bridge": topics((STRAP,), (Kind.CONFIG,)),
    **{one: topics((one,), (Kind.CONFIG,)) for one in (WEARABLE, OTHER, CAMERA)},
}


class Site:
    """A broker with both listeners.

    Args:
        broker: its settings are those of the listener on loopback.
        folder: stands for /etc/mosquitto.
        certificates: what the script made.
        port: of the secure listener.
    """

    def __init__(self, broker: Mosquitto, folder: Path, certificates: Path, port: int) -> None:
        self.broker = broker
        self.folder = folder
        self.certificates = certificates
        self.port = port

    def settings(self, account: str, password: str | None = None, **more: object) -> BrokerSettings:
        """How this account gets in."""
        given = BrokerSettings(
            host="127.0.0.1",
            port=self.port,
            username=account,
            password=SecretStr(password or f"secret of {account}"),
            tls=True,
            ca_file=self.certificates / "ca.crt",
        )
        return BrokerSettings.model_validate({**given.model_dump(), **more})

    def watcher(self) -> Listener:
        """Hears everything, on loopback."""
        return Listener(self.broker.settings, "#")

    def reload(self) -> None:
        process = self.broker._process
        assert process is not None
        process.send_signal(signal.SIGHUP)


def make_certificates(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    need(shutil.which("openssl"), "openssl")
    command = [str(SCRIPT), "--out", str(folder), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    made = make_certificates(folder, "127.0.0.1")
    assert made.returncode == 0, made.stderr
    return folder


def write_passwords(file: Path, accounts: tuple[str, ...]) -> None:
    """As docs/security.md has it: plain text first, then hashed in its place."""
    file.touch(0o600)
    file.write_text("".join(f"{one}:secret of {one}\n" for one in accounts))
    subprocess.run(["mosquitto_passwd", "-U", file], check=True, capture_output=True)
    assert "secret" not in file.read_text()


def change_password(file: Path, account: str, password: str) -> None:
    """It asks twice, and takes the answers from a pipe as well."""
    subprocess.run(
        ["mosquitto_passwd", file, account], input=f"{password}\n" * 2, text=True, check=True, capture_output=True
    )


def with_device(acl: str, device: str) -> str:
    """What the comments in ``acl`` say: the lines with #+, without it, with the device's id in place of DEVICE."""
    lines = re.findall(r"^#\+(.*)$", acl, re.MULTILINE)
    assert len(lines) == 4
    last = f"#+{lines[-1]}\n"
    return acl.replace(last, last + "".join(f"{line.replace('DEVICE', device)}\n" for line in lines))


@pytest.fixture
async def site(start_mosquitto: Callable[..., Awaitable[Mosquitto]], tmp_path: Path, certificates: Path) -> Site:
    folder, port = tmp_path / "etc", free_port()
    (folder / "conf.d").mkdir(parents=True)
    acl = (DEPLOY / "acl").read_text(encoding="utf-8")
    (folder / "acl").touch(0o600)
    (folder / "acl").write_text(with_device(acl, STRAP))
    write_passwords(folder / "passwords", (*ACCOUNTS, "+", "+#", "wrist-01+", "wrist-01/imu"))
    secure = (DEPLOY / "secure.conf").read_text(encoding="utf-8")
    secure, count = re.subn(r"^listener 8883$", f"listener {port} 127.0.0.1", secure, flags=re.MULTILINE)
    assert count == 1
    secure = secure.replace(f"{ETC}/certs", str(certificates)).replace(ETC, str(folder))
    (folder / "conf.d" / "secure.conf").write_text(secure)
    included = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8").splitlines()[-1]
    assert included == f"#include_dir {ETC}/conf.d"
    broker = await start_mosquitto(included[1:].replace(ETC, str(folder)) + "\n")
    return Site(broker, folder, certificates, port)


async def refusal(settings: BrokerSettings, name: str = "stranger") -> str:
    """What :meth:`Connection.run` says when the broker does not let us in."""
    with pytest.raises(ConnectError) as caught:
        await asyncio.wait_for(Connection(settings, name).run(), PATIENCE_S)
    return str(caught.value)


async def heard_until_end(site: Site, watcher: Listener) -> dict[str, list[bytes]]:
    """What was let through so far, by topic."""
    watcher.connection.publish("end", b"", 1)
    await until(lambda: watcher.heard and watcher.heard[-1].topic == "end")
    heard: dict[str, list[bytes]] = {}
    for one in watcher.heard[:-1]:
        heard.setdefault(one.topic, []).append(one.payload)
    watcher.heard.clear()
    assert site.broker.settings.port != site.port
    return heard


# -- everything together ----------------------------------------------------------------------------------------------


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


# -- who may do what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_each_publishes_its_own_and_nothing_else(
    site: Site, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    ways: list[tuple[Literal["5", "3.1.1"], int]] = [("5", 1), ("5", 0), ("3.1.1", 1), ("3.1.1", 0)]
    refused = EVERYTHING - WRITES[account]
    assert refused
    async with site.watcher() as watcher:
        for protocol, qos in ways:
            publisher = Connection(site.settings(account, protocol=protocol), "any-client-id")
            caplog.clear()
            async with running(publisher):
                for name in sorted(EVERYTHING):
                    publisher.publish(name, b"x", qos)
                publisher.publish("elsewhere", b"", 1)  # acknowledged after all before it
                assert await publisher.flush(PATIENCE_S)
                assert set(await heard_until_end(site, watcher)) == WRITES[account], (protocol, qos)
                # QoS 0 has no answer, and MQTT 3.1.1 knows none that says no: there, only MQTT 5 with QoS 1 is told.
                told = protocol == "5"
                assert publisher.dropped["refused"] == told + (len(refused) if told and qos else 0)
                assert publisher.acked == (len(EVERYTHING) + 1 if qos else 1)
                assert (publisher.resent, publisher.reconnects, publisher.connected) == (0, 0, True)
            notes = [record.message for record in caplog.records if "refused a message" in record.message]
            assert len(notes) == told, "said once"
            assert all("reason code 0x87" in note for note in notes)


@pytest.mark.parametrize("account", ACCOUNTS)
async def test_each_reads_its_own_and_nothing_else(site: Site, account: str) -> None:
    """Also with `#`, also what is retained: for a subscription is granted, and messages are not."""
    filters = ("#", "gammawear/v1/+/+", *(every(kind) for kind in Kind))
    last = min(READS[account])
    async with site.watcher() as publisher:
        live = Listener(site.settings(account), *filters)
        async with live:
            for name in sorted(EVERYTHING):
                publisher.connection.publish(name, b"x", 1, retain=True)
            publisher.connection.publish(last, b"end", 1)
            await until(lambda: live.heard and live.heard[-1].payload == b"end")
        assert {one.topic for one in live.heard} == READS[account]
        assert not any(one.retain for one in live.heard)
        late = Listener(site.settings(account), *filters)
        async with late:
            publisher.connection.publish(last, b"end", 1)
            await until(lambda: late.heard and late.heard[-1].payload == b"end")
        assert {one.topic for one in late.heard if one.retain} == READS[account]
        assert {one.topic for one in late.heard} == READS[account]


async def test_a_will_speaks_for_its_account_only(site: Site) -> None:
    async with site.watcher() as watcher:
        for name in (topic(OTHER, Kind.STATUS), topic("gateway", Kind.STATUS), topic(WEARABLE, Kind.STATUS)):
            will = Message(name, b"the will", 1, retain=True)
            async with running(Connection(site.settings(WEARABLE), "x", will=will), stop=False):
                pass
        await until(lambda: watcher.heard)  # they go in the order in which the connections went
        assert set(await heard_until_end(site, watcher)) == {topic(WEARABLE, Kind.STATUS)}


@pytest.mark.parametrize("account", ["+", "+#", "wrist-01+", "wrist-01/imu"])
async def test_a_name_with_a_wildcard_or_a_level_gets_nowhere(site: Site, account: str) -> None:
    async with site.watcher() as watcher:
        thief = Listener(site.settings(account), "#")
        async with thief:
            for name in sorted(EVERYTHING):
                watcher.connection.publish(name, b"from the watcher", 1)
                thief.connection.publish(name, b"from the thief", 1)
            assert await watcher.connection.flush(PATIENCE_S)
            assert await thief.connection.flush(PATIENCE_S)
            assert thief.connection.dropped["refused"] == len(EVERYTHING)
        heard = await heard_until_end(site, watcher)
        assert {payload for payloads in heard.values() for payload in payloads} == {b"from the watcher"}
        assert thief.heard == []


async def test_nobody_takes_the_session_of_another(site: Site) -> None:
    """A client id is the account's name, so that the gateway is neither thrown out nor robbed of what waits for it."""
    ends: list[str] = []

    def gateway(client_id: str) -> Connection:
        return Connection(
            site.settings("gateway"), client_id, clean=False, subscriptions=((every(Kind.IMU), 1),),
            on_message=heard.append, on_disconnected=ends.append,
        )  # fmt: skip

    heard: list[Received] = []
    thief: list[Received] = []
    names = ("gammawear-gateway", "gateway")
    async with running(gateway(names[0])):
        for name in names:
            posing = Connection(site.settings(OTHER), name, subscriptions=(("#", 1),), on_message=thief.append)
            async with running(posing):
                assert not posing.session_present
                assert ends == []
    device = Connection(site.settings(WEARABLE), "x")
    async with running(device):
        device.publish(topic(WEARABLE, Kind.IMU), b"waits", 1)
        assert await device.flush(PATIENCE_S)
    for name in names:
        async with running(Connection(site.settings(OTHER), name, on_message=thief.append)):
            pass
    await site.broker.stop()
    await site.broker.start()  # sessions that were read from the disk have their rights, too
    back = gateway("another name")
    async with running(back):
        await until(lambda: heard)
        assert back.session_present
    assert [one.payload for one in heard] == [b"waits"]
    assert thief == []


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


async def test_a_device_that_joins_a_bridge_needs_no_restart(site: Site) -> None:
    bridge = Connection(site.settings("bridge"), "x")
    async with site.watcher() as watcher, running(bridge):
        bridge.publish(topic("stranger", Kind.IMU), b"early", 1)
        assert await bridge.flush(PATIENCE_S)
        acl = site.folder / "acl"
        acl.write_text(with_device(acl.read_text(), "stranger"))
        site.reload()

        async with asyncio.timeout(PATIENCE_S):
            while bridge.dropped["refused"] == bridge.acked:  # until one was taken
                bridge.publish(topic("stranger", Kind.IMU), b"late", 1)
                assert await bridge.flush(PATIENCE_S)
        assert set((await heard_until_end(site, watcher))[topic("stranger", Kind.IMU)]) == {b"late"}
        assert bridge.reconnects == 0


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
        assert await heard_until_end(site, watcher) == {}
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
        assert await heard_until_end(site, watcher) == {}
    assert "refused a message on gammawear/v1/gateway/status" in caplog.text


# -- the files --------------------------------------------------------------------------------------------------------


def test_the_list_names_our_topics_and_no_others() -> None:
    """A kind that is added to the topics has to be given to somebody, and a misspelt one is seen."""
    acl = (DEPLOY / "acl").read_text(encoding="utf-8")
    rules = re.findall(r"^(?:#\+)?(?:topic|pattern) (read|write|readwrite|deny) (\S+)$", acl, re.MULTILINE)
    lines = [line for line in acl.splitlines() if line.startswith(("topic", "pattern", "#+"))]
    assert len(rules) == len(lines)
    kinds = set()
    for _, name in rules:
        root, version, who, kind = name.split("/")
        assert (root, version) == ("gammawear", "v1")
        assert who in {"+", "%u", "DEVICE", *re.findall(r"^user (\S+)$", acl, re.MULTILINE)}
        kinds.add(kind)
    assert kinds - {"#"} == set(Kind)


def test_whoever_has_a_role_is_no_device() -> None:
    """The patterns are for all: a block without `deny` for its own data would make a device of its account."""
    acl = (DEPLOY / "acl").read_text(encoding="utf-8")
    blocks = re.split(r"^user ", acl.split("# --- Devices")[0], flags=re.MULTILINE)[1:]
    assert [block.split("\n", 1)[0] for block in blocks] == ["gateway", "operator", "viewer", "bridge"]
    for block in blocks:
        name = block.split("\n", 1)[0]
        denied = set(re.findall(rf"^topic deny gammawear/v1/{name}/(\S+)$", block, re.MULTILINE))
        assert denied == {"#"} or denied == {*DATA, Kind.CONFIG} - {Kind.STATUS}, name


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


def test_certificates_are_for_the_names_given_and_keys_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    made = make_certificates(folder, "--days", "20", "broker.example", "127.0.0.1", "::1")
    assert made.returncode == 0, made.stderr
    assert "--ca-file" in made.stdout
    assert "PRIVATE" not in made.stdout + made.stderr
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"ca.key": 0o600, "broker.key": 0o600, "ca.crt": 0o644, "broker.crt": 0o644}

    def ask(*options: str, file: str = "broker.crt") -> str:
        command = ["openssl", "x509", "-in", str(folder / file), "-noout", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    names = ask("-ext", "subjectAltName").splitlines()[1].strip()
    assert names == "DNS:broker.example, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1"
    assert "CA:TRUE, pathlen:0" in ask("-ext", "basicConstraints", file="ca.crt")
    day = 86_400
    ends = [
        subprocess.run(["openssl", "x509", "-in", folder / "broker.crt", "-checkend", str(seconds)], check=False,
                       capture_output=True).returncode
        for seconds in (19 * day, 21 * day)
    ]  # fmt: skip
    assert ends == [0, 1]


async def test_the_certificates_pass_the_strictest_check(certificates: Path) -> None:
    """Python 3.13 and others insist on what RFC 5280 asks for."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificates / "broker.crt", certificates / "broker.key")
    client = ssl.create_default_context(cafile=certificates / "ca.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="elsewhere.example")


def test_certificates_are_replaced_only_when_told_and_the_ca_never(tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert make_certificates(tmp_path, "broker.example").returncode == 0
    first = contents()
    again = make_certificates(tmp_path, "broker.example")
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert contents() == first
    assert make_certificates(tmp_path, "--force", "other.example").returncode == 0
    second = contents()
    assert {name for name in first if first[name] != second[name]} == {"broker.key", "broker.crt"}
    (tmp_path / "ca.key").unlink()
    assert make_certificates(tmp_path, "--force", "other.example").returncode == 1
    assert (tmp_path / "broker.crt").read_bytes() == second["broker.crt"]


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("",), ("a b",), ("*.example",), ("a,DNS:b",), ("a\nb",), ("$(id)",), ("999.1.1.1",), ("-x",),
        ("--days", "0", "a"), ("--days", "1e3", "a"), ("--days",), ("--ca-days", "-1", "a"),
    ],
)  # fmt: skip
def test_what_is_no_name_makes_no_certificate(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folder = tmp_path / "made"
    made = make_certificates(folder, *arguments)
    assert made.returncode in (1, 2)
    assert made.stderr
    assert not folder.exists() or list(folder.iterdir()) == []
