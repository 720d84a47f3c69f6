"""Camera nodes, a real broker and a gateway, together: from the ADC to published detections."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from camera_stack import image_codebook, save_untrained, scene_node
from needed import need
from stack import new_gateway, serving, until

from device_emulator.camera.node import CameraNode
from device_emulator.camera.publisher import CameraPublisher
from device_emulator.camera.raw_files import read_raw
from device_emulator.camera.source import FolderSource
from gateway.frame_assembly import FrameAssembler
from protocol.connection import Connection
from protocol.messages import Detections
from protocol.topics import Kind, topic
from quantization.errors import FrameError

VISION = Path(__file__).parents[2] / "shared" / "data" / "vision"
BOOK = image_codebook()


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    save_untrained(folder)
    return folder


class Listener:
    """Everything that is published on the detections topic of one camera."""

    def __init__(self, broker, camera):
        self.messages: list[Detections] = []
        self.connection = Connection(
            broker, "listener", subscriptions=((topic(camera, Kind.DETECTIONS), 0),), on_message=self._take
        )

    def _take(self, received):
        self.messages.append(Detections.parse(received.payload))


@pytest.fixture
async def listening(mosquitto):
    listener = Listener(mosquitto.settings, "camera-01")
    running = asyncio.create_task(listener.connection.run())
    await listener.connection.wait_connected(30)
    yield listener
    await listener.connection.stop()
    await running


def get(port, path):
    """Status, content type and content."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read()


async def test_a_scene_is_seen_and_scored(mosquitto, detectors, listening):
    node = scene_node(BOOK, fps=5.0)
    async with serving(new_gateway(mosquitto.settings, folders=(detectors,), page_port=0)) as gateway:
        publisher = CameraPublisher(node, mosquitto.settings, qos=1)
        running = asyncio.create_task(publisher.run())
        await until(lambda: len(listening.messages) >= 4)
        status, kind, picture = await asyncio.to_thread(get, gateway.page_port, "/cameras/camera-01.jpg")
        assert (status, kind, picture[:2]) == (200, "image/jpeg", b"\xff\xd8")
        for path in ("/cameras/other.jpg", "/cameras/camera-01", "/cameras/../etc/passwd", "/x"):
            assert (await asyncio.to_thread(get, gateway.page_port, path))[0] == 404, path
        await publisher.stop(timeout=60)
        await running
        await until(lambda: gateway.cameras.totals.frames == publisher.packets_published)
        await gateway.detection.drain()
        assert {one.source for one in listening.messages} == {"synthetic"}
        assert [one.sequence for one in listening.messages] == sorted({one.sequence for one in listening.messages})
        await until(lambda: [one.frames >= 4 for one in gateway.cameras.scores] == [True])
        assert gateway.cameras.get("camera-01").preview is not None
        await until(lambda: gateway.cameras.get("camera-01").status.state == "offline")
        assert len(list(gateway.pipeline.devices)) == 0, "a camera is no wearable"


async def test_a_node_killed_in_mid_frame_leaves_nothing_behind(mosquitto, detectors):
    node = scene_node(BOOK, fps=5.0, chunk_bytes=200)
    async with serving(new_gateway(mosquitto.settings, folders=(detectors,))) as gateway:
        publisher = CameraPublisher(node, mosquitto.settings, qos=1)
        whole = publisher.connection.publish

        def only_half(name, payload, qos=0, **more):
            """The power goes after the fifth chunk of the third frame."""
            if name.endswith("frame") and publisher.packets_made == 3 and payload[32] == 5:
                running.cancel()
            if not running.cancelled() and not (publisher.packets_made == 3 and payload[32] >= 5):
                whole(name, payload, qos, **more)

        publisher.connection.publish = only_half  # type: ignore[method-assign]
        running = asyncio.create_task(publisher.run())
        await until(lambda: gateway.cameras.totals.frames == 2 and running.done())
        await until(lambda: gateway.cameras.get("camera-01").status.state == "offline")  # the will
        assert gateway.cameras.assembler.waiting == 1

        again = CameraPublisher(scene_node(BOOK, fps=5.0), mosquitto.settings, qos=1)
        running = asyncio.create_task(again.run())
        await until(lambda: gateway.cameras.totals.frames >= 4)
        await again.stop(timeout=60)
        await running
        assert gateway.cameras.assembler.waiting == 0
        assert gateway.cameras.assembler.waiting_bytes == 0
        assert gateway.pipeline.refusals.frames.total() == 0


async def test_of_a_killed_broker_every_frame_is_accounted_for(mosquitto, detectors):
    """More are made while it is away than wait in the camera: what the camera made came, or is counted."""
    node = scene_node(BOOK, fps=20.0, chunk_bytes=100)
    async with serving(new_gateway(mosquitto.settings, folders=(detectors,))) as gateway:
        gateway.cameras.assembler = assembler = FrameAssembler(timeout_s=1.0)
        publisher = CameraPublisher(node, mosquitto.settings, qos=0)
        running = asyncio.create_task(publisher.run())
        await until(lambda: gateway.cameras.totals.frames >= 3)
        await mosquitto.stop(signal.SIGKILL)
        made = publisher.packets_made
        await until(lambda: publisher.packets_made >= made + 20)
        await mosquitto.start()
        came = gateway.cameras.totals.frames
        await until(lambda: gateway.cameras.totals.frames >= came + 5)
        await publisher.stop(timeout=60)
        await running

        def accounted():
            losses = assembler.losses
            return gateway.cameras.totals.frames + losses.lost + losses.timed_out + losses.displaced

        await until(lambda: accounted() == publisher.packets_made)
        assert assembler.losses.lost >= 5
        assert assembler.waiting == 0


def unpacked(archive, folder, *wanted):
    path = VISION / archive
    need(path.exists(), str(path))
    with zipfile.ZipFile(path) as file:
        for member in file.namelist():
            name = Path(member).name
            if any(part in member for part in wanted) and name:
                (folder / name).write_bytes(file.read(member))


LAYOUT = '{{"width": 768, "height": 512, "cfa": "{}", "adc_bits": 14, "black": 600, "white": 15520}}'


async def test_real_camera_files_go_all_the_way(mosquitto, detectors, listening, tmp_path):
    """Four PASCALRAW frames, a DNG, a KDC, one scene in all four CFA orders; a stack and a JPEG in disguise do not."""
    unpacked("pascalraw_sample.zip", tmp_path, "images/2014")
    unpacked("raw_camera_files.zip", tmp_path, "colorchart.dng", "DC50.KDC", "768x512_", "DSC8695", "247-1")
    for path in tmp_path.glob("*bpc_test.raw"):
        path.unlink()
    for path in tmp_path.glob("DSC_1339*.raw"):
        path.with_suffix(".json").write_text(LAYOUT.format(path.stem.rsplit("_", 1)[1].upper()))
    source = FolderSource(tmp_path, layout=None, max_pixels=200_000, loop=False)
    node = CameraNode("camera-01", source, BOOK, fps=5.0)
    async with serving(new_gateway(mosquitto.settings, folders=(detectors,))) as gateway:
        publisher = CameraPublisher(node, mosquitto.settings, qos=1)
        sent = asyncio.create_task(publisher.run())
        await until(lambda: gateway.cameras.totals.frames == 10)
        await sent
        await gateway.detection.drain()
        assert node.unreadable == 2
        assert gateway.pipeline.refusals.frames.total() == 0
        await until(lambda: len(listening.messages) + gateway.detection.dropped == 10)
        sizes = {(one.width, one.height) for one in listening.messages}
        # Binning cuts off what does not fill its last cell.
        assert sizes <= {(600, 400), (1734, 1156), (1728, 1152), (1732, 1156), (768, 512)}
        assert len(sizes) >= 2


def test_one_scene_in_four_orders_gives_the_same_maps(detectors, tmp_path):
    """The files have one mosaic with its photosites swapped within each cell."""
    from models.vision.bundle import load_detector

    unpacked("raw_camera_files.zip", tmp_path, "768x512_")
    bundle = load_detector("tiny", (detectors,))
    heat = {}
    for order in ("rggb", "bggr", "grbg", "gbrg"):
        path = tmp_path / f"DSC_1339_768x512_{order}.raw"
        path.with_suffix(".json").write_text(LAYOUT.format(order.upper()))
        frame = read_raw(path)
        maps = bundle.maps(frame.codes(frame.sensor.lookup(BOOK)), frame.sensor.cfa)
        heat[order] = maps.centres.sigmoid().numpy()
    for order in ("bggr", "grbg", "gbrg"):
        assert np.abs(heat[order] - heat["rggb"]).max() < 0.02, order


def test_what_is_no_mosaic_is_refused_by_name(tmp_path):
    unpacked("raw_camera_files.zip", tmp_path, "DSC8695", "247-1")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(FrameError, match=path.name.replace(".", r"\.")):
            read_raw(path)
