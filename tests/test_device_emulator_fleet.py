"""Many devices on one loop."""

import asyncio

import pytest
from pydantic import SecretStr
from test_device_emulator_device import Still
from test_device_emulator_publisher import PATIENCE_S, Monitor, publisher, until
from test_device_emulator_replay import trace

from device_emulator.fleet import Fleet
from device_emulator.publisher import DevicePublisher
from device_emulator.replay import ReplaySource
from protocol.connection import BrokerSettings, ConnectError
from quantization.errors import MessageError

NAMES = [f"w{n}" for n in range(5)]


async def test_five_devices_say_everything_and_goodbye(mosquitto):
    fleet = Fleet([
        publisher(mosquitto.settings, ReplaySource([trace(500, seed=n)], loop=False), name=name, qos=1, speed=10)
        for n, name in enumerate(NAMES)
    ])  # fmt: skip
    async with Monitor(mosquitto.settings) as monitor:
        await fleet.run()
        await until(lambda: all(monitor.statuses(n) and monitor.statuses(n)[-1].state == "offline" for n in NAMES))
        for name in NAMES:
            assert [packet.sequence for packet in monitor.packets(name)] == list(range(10))
            assert monitor.labels(name)
            assert monitor.statuses(name)[0].state == "online"
            assert monitor.statuses(name)[-1].packets == 10
    assert (fleet.packets_made, fleet.packets_published, fleet.dropped) == (50, 50, 0)
    assert fleet.connected == 0


async def test_a_fleet_is_stopped_cleanly(mosquitto):
    fleet = Fleet([publisher(mosquitto.settings, name=name, speed=10) for name in NAMES])
    async with Monitor(mosquitto.settings) as monitor:
        task = asyncio.create_task(fleet.run())
        await until(lambda: fleet.packets_published > 20)
        assert fleet.connected == 5
        await fleet.stop()
        await asyncio.wait_for(task, PATIENCE_S)
        await until(lambda: all(monitor.statuses(name)[-1].state == "offline" for name in NAMES))
        assert all(monitor.statuses(name)[-1].packets is not None for name in NAMES), "said by the devices themselves"


async def test_a_fleet_that_is_cancelled_vanishes(mosquitto):
    fleet = Fleet([publisher(mosquitto.settings, name=name, speed=10) for name in NAMES])
    async with Monitor(mosquitto.settings) as monitor:
        task = asyncio.create_task(fleet.run())
        await until(lambda: fleet.packets_published > 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await until(lambda: all(monitor.statuses(name)[-1].state == "offline" for name in NAMES))
        assert all(monitor.statuses(name)[-1].packets is None for name in NAMES), "said by the broker"
        assert len(asyncio.all_tasks()) <= 5, "nothing but this test and its monitor is left"


@pytest.fixture
def starts(monkeypatch):
    """When the time of each device began, by its id."""
    noted = {}

    async def note(self, *, start_at):
        noted[self.device.device_id] = start_at
        await self.connection.stop()
        await self.connection.run()

    monkeypatch.setattr(DevicePublisher, "run", note)
    return noted


async def test_the_first_period_is_not_missed(free_port, starts):
    fleet = Fleet([publisher(BrokerSettings(port=free_port), name=name) for name in NAMES])
    begin = asyncio.get_running_loop().time()
    await asyncio.wait_for(fleet.run(), PATIENCE_S)
    first = starts["w0"]
    assert begin <= first < begin + 1.0
    assert [starts[name] for name in NAMES] == pytest.approx([first + 0.2 * n for n in range(5)])


async def test_packets_are_spread_over_the_period(free_port, starts):
    names = [f"n{n}" for n in range(20)]
    fleet = Fleet([publisher(BrokerSettings(port=free_port), name=name) for name in names], connects_at_a_time=4)
    begin = asyncio.get_running_loop().time()
    await asyncio.wait_for(fleet.run(), PATIENCE_S)
    first = starts["n0"]
    phases = [(starts[name] - first) % 1.0 for name in names]
    # Each in its own twentieth of the second, whenever its turn to connect came.
    assert [round(phase * 20, 3) % 20 for phase in phases] == list(range(20))
    assert min(starts.values()) >= begin


async def test_a_fleet_that_cannot_keep_up_says_so_once(mosquitto, caplog, monkeypatch):
    monkeypatch.setattr("device_emulator.node.LATE_S", -1.0)
    fleet = Fleet([publisher(mosquitto.settings, name=name, speed=10) for name in NAMES])
    task = asyncio.create_task(fleet.run())
    await until(lambda: fleet.packets_published > 20)
    await fleet.stop()
    await task
    assert fleet.late >= 20
    assert len([record for record in caplog.records if "cannot keep up" in record.message]) == 1


async def test_stop_ends_a_fleet_that_never_connected(free_port):
    fleet = Fleet([publisher(BrokerSettings(port=free_port), name=name) for name in NAMES], connects_at_a_time=2)
    task = asyncio.create_task(fleet.run())
    await asyncio.sleep(0.2)
    await fleet.stop(timeout=0.05)
    await asyncio.wait_for(task, PATIENCE_S)
    assert fleet.connected == 0


async def test_a_refusal_stops_the_fleet(start_mosquitto, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    broker = await start_mosquitto(f"\npassword_file {passwords}\n")
    settings = broker.settings.model_copy(update={"username": "w1", "password": SecretStr("wrong")})
    fleet = Fleet([publisher(settings, Still(50.0), name=name) for name in NAMES])
    with pytest.raises(ConnectError):
        await asyncio.wait_for(fleet.run(), PATIENCE_S)


async def test_an_empty_fleet_is_done_at_once():
    fleet = Fleet([])
    await fleet.run()
    await fleet.stop()
    assert (fleet.packets_made, fleet.lag_s) == (0, 0.0)


async def test_names_must_differ():
    with pytest.raises(MessageError, match="two devices"):
        Fleet([publisher(BrokerSettings(), name="w1"), publisher(BrokerSettings(), name="w1")])
