"""``docs/wire-format.md``: its bytes are the vectors, its messages parse, its numbers add up, its C compiles."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from factories import codebook, sensor
from vector_files import VECTORS, from_commented_hex, read_vector

from protocol.messages import MAX_MESSAGE_BYTES, Activity, Config, Label, Status
from protocol.topics import Kind, topic
from protocol.wire_size import publish_size
from quantization.codebook import Codebook
from quantization.codec import Encoder

TEXT = (Path(__file__).parent.parent / "docs" / "wire-format.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
MESSAGES = {"status": Status, "config": Config, "label": Label, "activity": Activity}


def blocks(language: str) -> list[tuple[str, str]]:
    return [(name, body) for kind, name, body in BLOCKS if kind == language]


@pytest.mark.parametrize(("name", "body"), blocks("hex"), ids=lambda v: v if v.endswith(".hex") else "")
def test_bytes_are_those_of_the_vectors(name, body):
    assert from_commented_hex(body) == read_vector(name)


def test_every_vector_but_one_is_shown():
    shown = {name for name, _ in blocks("hex")}
    assert {path.name for path in VECTORS.glob("*.hex")} - shown == {"codebook-statistics.hex"}


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
    assert [row[4] for row in rows("## MQTT")] == ["no", "yes", "no", "yes", "yes"]


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
    assert "1600 bytes" in TEXT


def test_the_c_snippet_encodes_like_we_do(tmp_path):
    """Every count of every channel, through the code as it is printed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    ((_, snippet),) = blocks("c")
    assert len(snippet.strip().splitlines()) <= 25
    if compiler is None:
        pytest.skip("no C compiler")
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
    source, program = tmp_path / "encode.c", tmp_path / "encode"
    source.write_text(snippet + main % edges, encoding="utf-8")
    subprocess.run([compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", source, "-o", program], check=True)
    done = subprocess.run([program], input=counts.astype("<i4").tobytes(), capture_output=True, check=True)
    assert done.stdout == encoder.encode(counts).tobytes()
