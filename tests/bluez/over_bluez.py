"""The bridge on real BlueZ, in a virtual machine whose Bluetooth controller is on our virtual air. See run.sh.

The machine's console is a shell that takes one line at a time (init); our code there is that of this working tree.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from ble_cable import Cable
from ble_stack import address_of as address
from ble_stack import another_bundle, flying, new_wearable
from needed import need
from stack import Answers, Listener, new_gateway, note, patient_devices, serving, until, wrist6

from device_emulator.ble.air import Air
from device_emulator.ble.gatt import State
from device_emulator.ble.peripheral import Wearable
from device_emulator.device import Emission
from models.bundle import SHIPPED, Bundle
from protocol.messages import Config, Status
from protocol.topics import Kind, topic

__all__ = ["patient_devices", "wrist6"]

IMAGE = os.environ.get("GAMMAWEAR_BLUEZ_VM", "")
BOOT_S = 240.0
START_S = 480.0
"""Emulated, PyTorch alone takes some minutes to be imported."""
BACK_S = 60.0


class Machine:
    """A virtual machine that has booted; its processes see this machine's disk, read-only."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._commands = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def booted(cls, image: Path, hci_port: int) -> AsyncIterator[Machine]:
        process = await asyncio.create_subprocess_exec(
            "qemu-system-x86_64", "-accel", os.environ.get("ACCEL", "tcg"), "-cpu", "max", "-smp", "2", "-m", "2048",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", str(image / "vmlinuz"), "-initrd", str(image / "system.cpio"),
            "-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio",
            "-chardev", f"socket,id=hci,host=127.0.0.1,port={hci_port},reconnect=1,nodelay=on",
            "-serial", "chardev:hci",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            machine = cls(process)
            await machine._hear("ready", BOOT_S)
            yield machine
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def run(self, command: str) -> list[str]:
        """What it prints. It gets no input, and what goes on in the background ends with an ampersand."""
        self._commands += 1
        end = f"end-of-{self._commands}"
        assert self._process.stdin is not None
        # The quotes are for the console's echo: only what the shell prints has the whole word.
        self._process.stdin.write(f"{command}\necho 'end-of'-{self._commands}\n".encode())
        await self._process.stdin.drain()
        return await self._hear(end, BACK_S)

    async def _hear(self, last: str, within_s: float) -> list[str]:
        assert self._process.stdout is not None
        lines: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while raw := await self._process.stdout.readline():
                    lines.append(raw.decode(errors="replace").strip())
                    if lines[-1].endswith(last):
                        return lines[:-1]
        pytest.fail("the machine says:\n" + "\n".join(lines[-40:]))


class Count:
    """Packets that were made, against those that reached the broker."""

    def __init__(self) -> None:
        self.made: dict[str, list[bytes]] = {}

    def of(self, device: str) -> Callable[[Emission], None]:
        packets = self.made.setdefault(device, [])
        return lambda emission: packets.append(emission.packet)

    def compare(self, listener: Listener) -> tuple[int, int, int]:
        """How many arrived, how many of those twice, and how many did not arrive though later ones did."""
        arrived = twice = missing = 0
        for device, made in self.made.items():
            heard = Counter(one.payload for one in listener.heard if one.topic == topic(device, Kind.IMU))
            assert not heard.keys() - set(made), "a packet that nobody made"
            last = max((n for n, packet in enumerate(made) if packet in heard), default=-1)
            arrived += heard.total()
            twice += heard.total() - len(heard)
            missing += sum(packet not in heard for packet in made[: last + 1])
        return arrived, twice, missing


def statuses(listener: Listener, device: str) -> list[Status]:
    heard = [one for one in listener.heard if one.topic == topic(device, Kind.STATUS) and one.payload]
    return [Status.parse(one.payload) for one in heard]


async def ended(*wearables: Wearable) -> None:
    await until(lambda: all(wearable.state is State.IDLE for wearable in wearables), within_s=BACK_S)


async def stream_again(*wearables: Wearable) -> str:
    """How long it took until all have sent something."""
    loop = asyncio.get_running_loop()
    started, sent = loop.time(), [wearable.packets_sent for wearable in wearables]
    await until(lambda: all(w.packets_sent > n for w, n in zip(wearables, sent, strict=True)), within_s=BACK_S)
    return f"{loop.time() - started:.1f} s"


async def test_the_bridge_on_bluez(wrist6: Bundle, mosquitto: Any, tmp_path: Path) -> None:
    need(IMAGE and shutil.which("qemu-system-x86_64"), "the image that run.sh makes, and QEMU")
    other = another_bundle(tmp_path / "bundles", wrist6)
    air, count = Air(), Count()
    # The second one streams to bonded centrals only; the third one comes later.
    wearables = [
        new_wearable(air, wrist6, n, speed=2.0, open_stream=n != 2, made=count.of(f"ble-{n}")) for n in (1, 2, 3)
    ]
    first, closed, late = wearables
    gateway = new_gateway(mosquitto.settings, folders=(SHIPPED, tmp_path / "bundles"))
    answers = Answers(gateway)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(gateway))
        listener = await stack.enter_async_context(Listener(mosquitto.settings, "gammawear/v1/#"))
        hci = await stack.enter_async_context(flying(air))
        cable = Cable(int(hci.rpartition(":")[2]))
        port = int((await stack.enter_async_context(cable.laid())).rpartition(":")[2])
        machine = await stack.enter_async_context(Machine.booted(Path(IMAGE), port))
        note(*await machine.run("uname -rv; bluetoothctl --version; sleep 2; bluetoothctl list"))

        gammawear = Path(sys.prefix) / "bin" / "gammawear"
        await machine.run(
            f"here {gammawear} -v bridge --host 10.0.2.2 --port {mosquitto.port} > /run/bridge.log 2>&1 & bridge=$!"
        )
        stack.push_async_callback(_say_log, machine)
        await until(lambda: statuses(listener, "bridge"), within_s=START_S)
        tasks = [asyncio.create_task(wearable.run()) for wearable in (first, closed)]
        stack.callback(lambda: [task.cancel() for task in tasks])

        note("found, connected, bonded; the first packets after", await stream_again(first, closed))

        listener.connection.publish(topic("ble-1", Kind.CONFIG), Config.with_codebook(other.codebook).to_json(), 1)
        await until(lambda: statuses(listener, "ble-1")[-1].codebook == other.codebook.digest.hex())
        assert first.uploads == 1
        await until(lambda: answers.starts("ble-1") and answers.starts("ble-2"), within_s=180.0)

        for number, wearable in ((1, first), (2, closed)):
            air.drop(address(number))
            await ended(wearable)
            note(f"link {number} dropped; packets again after", await stream_again(wearable))
        await asyncio.sleep(10)
        note("packets arrived, twice, missing:", *count.compare(listener), "; windows answered:", len(answers.windows))
        assert count.compare(listener)[1:] == (0, 0)

        await machine.run("end $bluez")
        await ended(first, closed)
        await machine.run("bluez")
        note("bluetoothd started anew; packets again after", await stream_again(first, closed))
        tasks.append(asyncio.create_task(late.run()))
        note("a new wearable; its packets after", await stream_again(late))

        await machine.run("bluetoothctl power off")
        await ended(*wearables)
        await machine.run("bluetoothctl power on")
        note("adapter off and on; packets again after", await stream_again(*wearables))

        cable.pull()
        await machine.run("end $attached")
        await ended(*wearables)
        cable.plugged = True
        await machine.run("sleep 2; attach")
        note("adapter unplugged and plugged in; packets again after", await stream_again(*wearables))

        await machine.run("kill $(pidof gammawear); wait $bridge")
        await until(lambda: statuses(listener, "bridge")[-1].state == "offline")
        await ended(*wearables)
        note("at the end: packets arrived, twice, missing:", *count.compare(listener))


async def _say_log(machine: Machine) -> None:
    for line in await machine.run("cat /run/bridge.log; tail -n 5 /run/bluetoothd.log; dmesg | tail -n 5"):
        note("|", line)
