"""One device on a real broker: its packets, its truth, its status, and what happens when things break."""

import asyncio
import contextlib
import logging

import pytest
from factories import LABELS, codebook, sensor
from pydantic import SecretStr
from test_device_emulator_device import Still
from test_device_emulator_replay import trace

from device_emulator.device import Device, shared_encoder
from device_emulator.link import Link, LinkSettings
from device_emulator.publisher import DevicePublisher
from device_emulator.replay import ReplaySource
from protocol.connection import BrokerSettings, ConnectError, Connection
from protocol.messages import Config, Label, Status
from protocol.packet import SEQUENCE_MODULUS, Packet
from protocol.topics import Kind, parse, topic

PATIENCE_S = 15.0


async def until(condition):
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds
            await asyncio.sleep(0.01)


class Monitor:
    """Sees all that is said, in order; keeps its session over a restart of the broker."""

    def __init__(self, settings, client_id="monitor"):
        self.heard = []
        self.connection = Connection(
            settings, client_id, clean=False, subscriptions=(("gammawear/v1/#", 1),), on_message=self.heard.append
        )

    async def __aenter__(self):
        self._running = asyncio.create_task(self.connection.run())
        await self.connection.wait_connected(PATIENCE_S)
        return self

    async def __aexit__(self, *_):
        await self.connection.stop()
        await self._running

    def of(self, kind, device="w1"):
        return [one for one in self.heard if parse(one.topic) == (device, kind)]

    def packets(self, device="w1"):
        return [Packet.from_bytes(one.payload) for one in self.of(Kind.IMU, device)]

    def statuses(self, device="w1"):
        return [Status.parse(one.payload) for one in self.of(Kind.STATUS, device)]

    def labels(self, device="w1"):
        return [Label.parse(one.payload) for one in self.of(Kind.LABEL, device)]


def publisher(settings, source=None, *, name="w1", packet_s=1.0, **options):
    source = source or Still(50.0)
    encoder = shared_encoder(codebook(rate_hz=source.rate_hz), source.sensor)
    return DevicePublisher(Device(name, source, encoder, packet_s=packet_s), settings, **options)


@contextlib.asynccontextmanager
async def running(one):
    """Run it; stop it at the end."""
    task = asyncio.create_task(one.run())
    try:
        yield task
    finally:
        await one.stop()
        await task


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_everything_arrives_and_the_end_is_said(mosquitto, qos, protocol):
    one = trace(500, gaps={330: 300})
    settings = mosquitto.settings.model_copy(update={"protocol": protocol})
    wearer = publisher(settings, ReplaySource([one], loop=False), qos=qos, speed=10)
    async with Monitor(mosquitto.settings) as monitor:
        await wearer.run()
        await until(lambda: monitor.statuses() and monitor.statuses()[-1].state == "offline")
        packets = monitor.packets()
        assert [packet.sequence for packet in packets] == list(range(11))
        assert sum(packet.samples for packet in packets) == 500
        assert {message.qos for message in monitor.of(Kind.IMU) + monitor.of(Kind.LABEL)} == {qos}

        labelled = sum((run.to_tick - run.from_tick) // 20 for run in monitor.labels())
        assert labelled == int((one.label >= 0).sum())
        assert {run.activity for run in monitor.labels()} == {LABELS[i] for i in one.label if i >= 0}

        online, *_, offline = monitor.statuses()
        assert (online.state, online.codebook, online.source) == ("online", codebook().digest.hex(), "dataset")
        assert (offline.state, offline.packets, offline.dropped) == ("offline", 11, 0)
        assert wearer.packets_published == 11
        assert (wearer.connection.queued, wearer.connection.unacked) == (0, 0)


async def test_status_is_retained_while_online_and_after(mosquitto):
    async with running(publisher(mosquitto.settings, speed=10)) as task:
        async with Monitor(mosquitto.settings, "early") as monitor:
            await until(lambda: len(monitor.packets()) > 2)
        async with Monitor(mosquitto.settings, "late") as monitor:
            await until(monitor.statuses)
            assert monitor.of(Kind.STATUS)[0].retain
            assert monitor.statuses()[0].state == "online"
            assert not any(message.retain for message in monitor.of(Kind.IMU) + monitor.of(Kind.LABEL))
        assert not task.done()
    async with Monitor(mosquitto.settings, "after") as monitor:
        await until(monitor.statuses)
        assert monitor.statuses()[0].state == "offline"


async def test_status_is_said_again_from_time_to_time(mosquitto, monkeypatch):
    monkeypatch.setattr("device_emulator.node.STATUS_INTERVAL_S", 0.2)
    wearer = publisher(mosquitto.settings, speed=50)
    async with Monitor(mosquitto.settings) as monitor, running(wearer):
        await until(lambda: len(monitor.statuses()) >= 4)
        counted = [status.packets for status in monitor.statuses()]
        assert counted == sorted(counted)
        assert counted[3] >= 20, "not with every packet"


async def test_a_power_cut_is_said_by_the_broker(mosquitto):
    wearer = publisher(mosquitto.settings, speed=10)
    async with Monitor(mosquitto.settings) as monitor:
        task = asyncio.create_task(wearer.run())
        await until(lambda: len(monitor.packets()) > 2)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await until(lambda: monitor.statuses()[-1].state == "offline")
        assert monitor.statuses()[-1] == Status(state="offline", source="synthetic"), "the will knows no counters"


async def test_a_retained_codebook_is_taken_at_the_start_and_switched_between_packets(mosquitto):
    second, third = codebook(bits=3), codebook(bits=2)
    config = topic("w1", Kind.CONFIG)
    async with Monitor(mosquitto.settings) as monitor:
        monitor.connection.publish(config, Config.with_codebook(second).to_json(), 1, retain=True)
        await monitor.connection.flush(PATIENCE_S)
        wearer = publisher(mosquitto.settings, qos=1, speed=10)
        async with running(wearer):
            await until(lambda: wearer.device.codebook == second)
            await until(lambda: len(monitor.packets()) > 4)
            monitor.connection.publish(config, Config.with_codebook(third).to_json(), 1, retain=True)
            await until(lambda: wearer.device.codebook == third)
            made = wearer.packets_made
            monitor.connection.publish(config, b"", 1, retain=True)
            await until(lambda: len(monitor.packets()) > made + 3)
            assert wearer.device.codebook == third, "a cleared configuration changes nothing"

        digests = [packet.short_digest for packet in monitor.packets()]
        order = [codebook().short_digest, second.short_digest, third.short_digest]
        assert sorted(digests, key=order.index) == digests
        assert digests[-1] == third.short_digest
        assert [packet.sequence for packet in monitor.packets()] == list(range(len(digests)))
        # Status names a codebook before the first packet that is made with it.
        for book in (second, third):
            said = next(
                n for n, message in enumerate(monitor.heard)
                if message.topic.endswith("status") and Status.parse(message.payload).codebook == book.digest.hex()
            )  # fmt: skip
            used = next(
                n for n, message in enumerate(monitor.heard)
                if message.topic.endswith("imu") and message.payload.startswith(book.short_digest)
            )  # fmt: skip
            assert said < used


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        (b"not json", "Config"),
        (b'{"codebok": "AA=="}', "codebok"),
        (Config(codebook="AAAA").to_json(), "codebook"),
        (Config.with_codebook(codebook(("acc_x", "acc_y", "acc_z"))).to_json(), "the codebook is for"),
    ],
)
async def test_a_bad_configuration_is_said_and_the_old_goes_on(mosquitto, payload, match, caplog):
    wearer = publisher(mosquitto.settings, speed=10)
    async with Monitor(mosquitto.settings) as monitor, running(wearer):
        await until(lambda: len(monitor.packets()) > 1)
        monitor.connection.publish(topic("w1", Kind.CONFIG), payload, 1)
        await until(lambda: monitor.statuses()[-1].error)
        assert match in monitor.statuses()[-1].error
        assert [match in text for text in caplog.messages if text.startswith("w1: ")] == [True]
        assert monitor.statuses()[-1].codebook == codebook().digest.hex()
        heard = len(monitor.packets())
        await until(lambda: len(monitor.packets()) > heard + 2)
        assert {packet.short_digest for packet in monitor.packets()} == {codebook().short_digest}
        # And a good one takes the error away.
        monitor.connection.publish(topic("w1", Kind.CONFIG), Config(axes=(2, 1, 3)).to_json(), 1)
        await until(lambda: monitor.statuses()[-1].axes == (2, 1, 3))
        assert monitor.statuses()[-1].error is None


async def test_a_restart_of_the_broker_loses_nothing_at_qos_1(mosquitto):
    wearer = publisher(mosquitto.settings, qos=1, speed=20)
    async with Monitor(mosquitto.settings) as monitor:
        async with running(wearer):
            await until(lambda: len(monitor.packets()) > 10)
            await mosquitto.stop()
            made = wearer.packets_made
            await until(lambda: wearer.packets_made > made + 10)
            assert not wearer.connection.connected
            await mosquitto.start()
            await until(lambda: wearer.connection.connected and monitor.connection.connected)
            made = wearer.packets_made
            await until(lambda: wearer.packets_made > made + 10)
        await until(lambda: monitor.statuses()[-1].state == "offline")
        heard = {packet.sequence for packet in monitor.packets()}
        assert wearer.packets_made < SEQUENCE_MODULUS
        assert heard == set(range(wearer.packets_made))
        assert wearer.dropped == 0
        assert wearer.connection.reconnects == 1
        # The broker was away, the device was not: it is online again.
        assert [status.state for status in monitor.statuses()].count("online") >= 2


async def test_without_a_broker_a_bounded_queue_drops_and_counts(free_port):
    wearer = publisher(BrokerSettings(port=free_port), qos=1, speed=100, labels=False, queue_limit=5)
    task = asyncio.create_task(wearer.run())
    await until(lambda: wearer.packets_made > 20)
    await wearer.stop(timeout=0.05)
    await task
    # Of the five places, the farewell has one.
    assert wearer.packets_published - 4 == wearer.dropped
    assert wearer.connection.queued == 5


async def test_a_broker_that_refuses_us_is_an_error_at_once(start_mosquitto, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    broker = await start_mosquitto(f"\npassword_file {passwords}\n")
    settings = broker.settings.model_copy(update={"username": "w1", "password": SecretStr("wrong")})
    with pytest.raises(ConnectError):
        await publisher(settings).run()


async def test_stopped_before_it_ran_it_does_not_run(free_port):
    wearer = publisher(BrokerSettings(port=free_port))
    await wearer.stop()
    async with asyncio.timeout(PATIENCE_S):
        await wearer.run()
    assert wearer.packets_published == 0


# -- time --------------------------------------------------------------------------------------------------------------


async def test_time_is_kept_against_the_start(free_port, monkeypatch):
    wearer = publisher(BrokerSettings(port=free_port), Still(52.0), speed=4)
    moments = []

    async def note(moment):
        moments.append(moment)
        await asyncio.sleep(0)

    monkeypatch.setattr(wearer, "_wait_until", note)
    task = asyncio.create_task(wearer.run(start_at=1000.0))
    await until(lambda: len(moments) >= 3600)
    await wearer.stop(timeout=0.01)
    await task
    # Packet n is due with its last sample, 51 periods after its first: an hour later still, to the millisecond.
    for n, moment in enumerate(moments[:3600]):
        assert (moment - 1000.0) * 4 == pytest.approx(n + 51 / 52, abs=0.00051)


async def test_a_packet_does_not_go_out_before_its_time(mosquitto):
    wearer = publisher(mosquitto.settings, packet_s=0.5, speed=50)
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with running(wearer):
        await until(lambda: wearer.packets_published >= 100)
        assert loop.time() - start >= 49.98 / 50


async def test_a_process_that_cannot_keep_up_says_so_once(mosquitto, caplog):
    wearer = publisher(mosquitto.settings)
    loop = asyncio.get_running_loop()
    with caplog.at_level(logging.WARNING, "device_emulator.publisher"):
        task = asyncio.create_task(wearer.run(start_at=loop.time() - 30))
        await until(lambda: wearer.packets_published >= 29)
        assert wearer.late >= 29
        await wearer.stop()
        await task
    assert len([record for record in caplog.records if "cannot keep up" in record.message]) == 1


# -- the link ----------------------------------------------------------------------------------------------------------


async def test_a_link_that_loses_repeats_and_swaps(mosquitto):
    link = Link(LinkSettings(loss=0.2, duplicate=0.2, reorder=0.2, seed=3))
    source = ReplaySource([trace(2000)], loop=False)
    wearer = publisher(mosquitto.settings, source, link=link, speed=40, qos=1)
    async with Monitor(mosquitto.settings) as monitor:
        await wearer.run()
        await until(lambda: monitor.statuses() and monitor.statuses()[-1].state == "offline")
        heard = [packet.sequence for packet in monitor.packets()]
    assert min(link.lost, link.duplicated, link.reordered) > 0
    assert len(heard) == wearer.packets_published == 40 - link.lost + link.duplicated
    assert len(set(heard)) == 40 - link.lost
    assert heard != sorted(heard)


async def test_the_truth_does_not_go_through_the_link(mosquitto):
    source = ReplaySource([trace(200, seed=4)], loop=False)
    wearer = publisher(mosquitto.settings, source, link=Link(LinkSettings(loss=1.0)), speed=20)
    async with Monitor(mosquitto.settings) as monitor:
        await wearer.run()
        await until(lambda: monitor.statuses() and monitor.statuses()[-1].state == "offline")
        assert monitor.packets() == []
        assert monitor.labels()
        assert monitor.statuses()[-1].packets == 4


async def test_labels_can_be_left_out(mosquitto):
    wearer = publisher(mosquitto.settings, ReplaySource([trace(200)], loop=False), labels=False, speed=20)
    async with Monitor(mosquitto.settings) as monitor:
        await wearer.run()
        await until(lambda: monitor.statuses() and monitor.statuses()[-1].state == "offline")
        assert monitor.labels() == []
        assert len(monitor.packets()) == 4


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_speed_is_a_number(speed):
    with pytest.raises(ValueError, match="speed"):
        publisher(BrokerSettings(), speed=speed)


def test_a_part_with_a_long_name_fits_its_status():
    part = sensor()
    long = type(part)("x" * 100, part.channels, part.adc_bits, part.lsb, part.offset)
    source = Still(50.0, long)
    device = Device("w1", source, shared_encoder(codebook(), long))
    assert len(Status.parse(device.status().to_json()).sensor) == 64
