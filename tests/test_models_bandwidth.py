"""Bytes are counted in real packets, and the model card says only what the bundle knows."""

from dataclasses import replace

import numpy as np
import pytest
from factories import codebook, tiny_bundle

from models.bandwidth import bandwidth, packets_of
from models.bundle import SHIPPED, load_bundle
from models.bundle_files import CARD_FILE, bundle_folders
from models.card import model_card
from protocol.packet import HEADER_BYTES, MAX_PAYLOAD_BYTES, Coder
from quantization.entropy import statistics_from_codes
from quantization.imu import Codes


def walk(samples: int, *, seed: int = 0, moving: float = 0.1) -> Codes:
    """Codes of six channels that mostly stay."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([-1, 0, 1], (samples, 6), p=[moving / 2, 1 - moving, moving / 2])
    return np.clip(8 + steps.cumsum(axis=0), 0, 15).astype(np.uint8)


@pytest.mark.parametrize("packet_s", [0.5, 1.0, 2.0])
def test_packets_hold_all_codes_in_order(packet_s):
    plain = codebook()
    for book in (plain, replace(plain, contexts=statistics_from_codes([walk(5000)], 4))):
        codes = walk(333, seed=1)
        packets = list(packets_of(codes, book, packet_s))
        assert np.array_equal(np.concatenate([packet.codes(book) for packet in packets]), codes)
        assert all(packet.samples <= round(50 * packet_s) for packet in packets)
        assert all(len(packet.payload) <= MAX_PAYLOAD_BYTES for packet in packets)


def test_bits_are_of_payload_and_of_all_bytes():
    book = codebook()
    used = bandwidth([walk(100), walk(100, seed=1)], book, 1.0)
    assert (used.values, used.packets, used.payload) == (1200, 4, 600)
    assert used.payload_bits == 4.0
    assert used.all_in_bits == 4 + 8 * 4 * HEADER_BYTES / 1200


def test_coded_codes_take_fewer():
    book = replace(codebook(), contexts=statistics_from_codes([walk(5000)], 4))
    used = bandwidth([walk(1000, seed=2)], book, 2.0)
    assert 0.4 < used.payload_bits < 0.9
    assert {packet.coder for packet in packets_of(walk(1000, seed=2), book, 2.0)} == {Coder.ENTROPY}


def test_nothing_has_no_bandwidth():
    with pytest.raises(ValueError, match="no sample"):
        bandwidth([], codebook(), 1.0)


def test_the_card_is_in_the_folder_and_names_what_matters(tmp_path):
    bundle = tiny_bundle(tmp_path, "mine", version=3)
    card = (tmp_path / "mine@3" / CARD_FILE).read_text(encoding="utf-8")
    assert card == model_card(bundle)
    assert card.startswith("# mine@3\n")
    scores = bundle.manifest.scores
    assert scores is not None
    for text in (
        *bundle.labels,
        bundle.manifest.data.licence,
        scores.protocol,
        "50 Hz",
        bundle.codebook.digest.hex()[:8],
    ):
        assert text in card


def test_every_shipped_card_is_that_of_its_bundle():
    carded = [folder for folder in bundle_folders(SHIPPED) if (folder / CARD_FILE).exists()]
    assert {folder.name for folder in carded} >= {"wrist6@2"}
    for folder in carded:
        assert (folder / CARD_FILE).read_text(encoding="utf-8") == model_card(load_bundle(folder))
