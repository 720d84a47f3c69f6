"""``docs/wire-format.md``: its bytes are the vectors, its messages parse, its numbers add up, its C compiles."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import codebook, sensor
from needed import need
from vector_files import VECTORS, from_commented_hex, read_vector

from protocol.frame import frame_chunks
from protocol.messages import MAX_MESSAGE_BYTES, Activity, Config, Debug, Detections, Label, RawTrace, Status, Truth
from protocol.packet import Packet
from protocol.topics import Kind, topic
from protocol.wire_size import publish_size
from quantization.codebook import Codebook, ContextLayout
from quantization.codec import Encoder, unpack
from quantization.entropy import EntropyCoder
from quantization.errors import CodebookError
from quantization.gamma_image import linear_image
from quantization.raw import Cfa

TEXT = (Path(__file__).parent.parent / "docs" / "wire-format.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
MESSAGES = {
    "status": Status,
    "config": Config,
    "label": Label,
    "debug": Debug,
    "raw": RawTrace,
    "activity": Activity,
    "truth": Truth,
    "detections": Detections,
}


def blocks(language: str) -> list[tuple[str, str]]:
    return [(name, body) for kind, name, body in BLOCKS if kind == language]


@pytest.mark.parametrize(("name", "body"), blocks("hex"), ids=lambda v: v if v.endswith(".hex") else "")
def test_bytes_are_those_of_the_vectors(name, body):
    assert from_commented_hex(body) == read_vector(name)


def test_every_small_vector_is_shown():
    shown = {name for name, _ in blocks("hex")}
    assert {path.name for path in VECTORS.glob("*.hex")} - shown == {
        "codebook-statistics.hex",
        "codebook-contexts-3x4.hex",
        "packet-coded-3x4.hex",
        "codes-coded-3x4.hex",
    }


@pytest.mark.parametrize(("name", "body"), blocks("json"))
def test_messages_parse(name, body):
    message = MESSAGES[name].parse(body.encode())
    assert json.loads(message.to_json()) == json.loads(body), "nothing is lost, nothing is added"


def test_every_message_has_an_example():
    assert {name for name, _ in blocks("json")} == set(MESSAGES)
    assert str(MAX_MESSAGE_BYTES) in TEXT


def test_the_examples_belong_together():
    book = Codebook.from_bytes(read_vector("codebook.hex"))
    examples = {name: MESSAGES[name].parse(body.encode()) for name, body in blocks("json")}
    assert examples["config"].read_codebook() == book
    assert examples["status"].codebook == book.digest.hex() == read_vector("codebook-digest.hex").hex()


def rows(heading: str) -> list[list[str]]:
    """The table under a heading, without its two head lines."""
    part = TEXT.partition(f"\n{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", part, re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in table[0].splitlines()[2:]]


def test_topics_are_those_of_the_protocol():
    assert [row[0] for row in rows("## MQTT")] == [f"`{topic('ID', kind)}`".replace("ID", "<id>") for kind in Kind]
    assert [row[4] for row in rows("## MQTT")] == [
        *("no", "yes", "no", "yes", "no", "no", "yes"),
        *("no", "no", "yes"),
    ]


def test_the_chunk_is_what_a_camera_sends():
    codes = np.array([[1, 2], [3, 15]], np.uint8)
    (chunk,) = frame_chunks(
        codes, linear_image(4), cfa=Cfa.GBRG, sequence=5, tick_ms=1000, exposure_us=20_000, binning=3, lift=2
    )
    assert bytes(chunk) == read_vector("chunk.hex")


def test_bandwidth_adds_up():
    name, packet = topic("w1", Kind.IMU), 12 + 156
    sizes = [
        624,
        156,
        packet,
        publish_size(name, packet, qos=0, version=4, alias=False),
        publish_size(name, packet, qos=0, version=5, alias=False),
        publish_size(name, packet, qos=0, version=5, alias=True),
        publish_size(name, packet, qos=1, version=5, alias=True),
    ]
    found = [(int(size), float(share)) for _, size, share in rows("## What counts as bandwidth")]
    assert found == [(size, round(size * 8 / (52 * 6), 2)) for size in sizes]


def test_the_codebooks_size():
    assert len(bytes(codebook())) == 1600 == 16 + 6 * (16 + 8 * 15 + 8 * 16)
    assert "1600 for six channels" in TEXT
    contexts = np.full((6, ContextLayout.of(4).size), 128, np.uint8)
    assert len(bytes(replace(codebook(), contexts=contexts))) == 1600 + 1962
    assert "1962 for six channels" in TEXT
    assert contexts.size <= 2048


def compiled(source: str, folder: Path) -> Path:
    """The program of a C text, built without a single warning."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    need(compiler, "a C compiler (Debian: apt install gcc libc6-dev)")
    assert compiler is not None
    (folder / "main.c").write_text(source, encoding="utf-8")
    options = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run([compiler, *options, folder / "main.c", "-o", folder / "main"], check=True)
    return folder / "main"


def test_the_c_snippet_encodes_like_we_do(tmp_path):
    """Every count of every channel, through the code as it is printed."""
    snippet = dict(blocks("c"))[""]
    assert len(snippet.strip().splitlines()) <= 25
    encoder = Encoder(codebook(), sensor())
    counts = np.repeat(encoder.sensor.all_counts()[:, None], 6, axis=1)
    edges = ",".join(map(str, encoder.thresholds.ravel().tolist()))
    main = """
#include <stdio.h>
int main(void) {
    static const int32_t T[] = {%s};
    int32_t counts[6];
    uint8_t codes[6];
    while (fread(counts, sizeof counts, 1, stdin) == 1) {
        encode_sample(counts, T, 6, 4, codes);
        fwrite(codes, sizeof codes, 1, stdout);
    }
    return 0;
}
"""
    program = compiled(snippet + main % edges, tmp_path)
    done = subprocess.run([program], input=counts.astype("<i4").tobytes(), capture_output=True, check=True)
    assert done.stdout == encoder.encode(counts).tobytes()


CODER_MAIN = """
#include <stdio.h>
int main(void) {
    static uint8_t contexts[16 * 583], codes[1024 * 16], again[1024 * 16], payload[232];
    int head[4]; /* channels, bits, samples, room */
    while (fread(head, sizeof head, 1, stdin) == 1) {
        Coder c;
        int channels = head[0], bits = head[1], size, i, ok;
        int table = channels * ((1 << bits) - 1 + 19 * (1 << min(bits, 4)) + 4 * (bits > 3 ? bits - 2 : 1));
        if (fread(contexts, 1, table, stdin) != (size_t)table) return 1;
        if (fread(codes, channels, head[2], stdin) != (size_t)head[2]) return 1;
        begin(&c, contexts, channels, bits, payload, head[3], 0);
        for (i = 0; i < head[2]; i++) sample(&c, codes + i * channels);
        size = length(&c);
        fwrite(&size, sizeof size, 1, stdout);
        fwrite(payload, 1, size, stdout);
        if (size == 0) continue;
        begin(&c, contexts, channels, bits, payload, size, 1);
        for (i = 0; i < head[2]; i++) sample(&c, again + i * channels);
        ok = valid(&c) && memcmp(codes, again, head[2] * channels) == 0;
        payload[size - 1] ^= 1;
        begin(&c, contexts, channels, bits, payload, size, 1);
        for (i = 0; i < head[2]; i++) sample(&c, again + i * channels);
        ok = ok * 2 + valid(&c);
        fwrite(&ok, sizeof ok, 1, stdout);
    }
    return 0;
}
"""


def test_the_c_entropy_coder_makes_the_same_bytes(tmp_path):
    """Random tables, codes and rooms, and the vectors; what C says of a damaged payload is what we say."""
    rng = np.random.default_rng(7)
    vector = Codebook.from_bytes(read_vector("codebook-contexts-3x4.hex"))
    known = unpack(read_vector("codes-coded-3x4.hex"), 60, 3, 4)
    cases = [(4, vector.contexts, known, 232)]
    for _ in range(300):
        bits, channels, samples = int(rng.integers(1, 9)), int(rng.integers(1, 17)), int(rng.integers(1, 40))
        contexts = rng.choice([rng.integers(1, 256), 255, 1], size=(channels, ContextLayout.of(bits).size))
        steps = rng.integers(-4, 5, size=(samples, channels)) * (rng.random((samples, channels)) < rng.random())
        codes = np.clip(np.cumsum(steps, axis=0) + rng.integers(0, 2**bits), 0, 2**bits - 1)
        cases.append((bits, contexts.astype(np.uint8), codes.astype(np.uint8), int(rng.choice([5, 30, 232]))))
    program = compiled(dict(blocks("c"))["entropy.c"] + CODER_MAIN, tmp_path)
    given = b"".join(
        np.array([codes.shape[1], bits, len(codes), room], "<i4").tobytes() + contexts.tobytes() + codes.tobytes()
        for bits, contexts, codes, room in cases
    )
    said = subprocess.run([program], input=given, capture_output=True, check=True).stdout
    at, fitting = 0, 0
    for bits, contexts, codes, room in cases:
        size = int.from_bytes(said[at : at + 4], "little")
        payload = said[at + 4 : at + 4 + size]
        coder = EntropyCoder(bits, contexts)
        assert payload == (coder.encode(codes, room) or b"")
        at += 4 + size
        if not payload:
            continue
        fitting += 1
        damaged = payload[:-1] + bytes([payload[-1] ^ 1])
        assert int.from_bytes(said[at : at + 4], "little") == 2 + accepts(coder, damaged, len(codes))
        at += 4
    assert at == len(said)
    assert 50 < fitting < len(cases)
    assert (
        Packet.from_bytes(read_vector("packet-coded-3x4.hex")).payload == said[4:][: int.from_bytes(said[:4], "little")]
    )


def accepts(coder: EntropyCoder, payload: bytes, samples: int) -> bool:
    try:
        coder.decode(payload, samples)
    except CodebookError:
        return False
    return True
