"""What the radio costs."""

import pytest

from protocol.energy import SENSOR_UA, EnergyLedger, empty_event_uj, notification_uj


def test_energy_per_byte_of_the_product_specification():
    # The published µJ per byte: 0.69 (1M, 20 B), 0.21 (1M, 244 B), 0.12 (2M, 244 B)
    assert notification_uj(20) / 20 == pytest.approx(0.69, abs=0.005)
    assert notification_uj(244) / 244 == pytest.approx(0.21, abs=0.005)
    assert notification_uj(244, "2M") / 244 == pytest.approx(0.12, abs=0.005)
    for wrong in (0, 245):
        with pytest.raises(ValueError, match="notification"):
            notification_uj(wrong)


def test_the_ledger_of_an_accelerometer():
    # 12 bits of three axes at 50 Hz, 225 bytes/s in full packets: 15.8 µA
    ledger = EnergyLedger(packets=100, packet_bytes=24_400, seconds=24_400 / 225)
    assert ledger.microamperes()["data"] == pytest.approx(15.8, rel=0.02)
    assert "sensor" not in ledger.microamperes()


def test_a_slow_link_wastes_less_and_the_gyroscope_dwarfs_it():
    def ledger(**changes):
        return EnergyLedger(packets=60, packet_bytes=60 * 168, seconds=60, sensor_ua=SENSOR_UA["bmi270"], **changes)

    fast, slow = ledger(connection_interval_ms=15), ledger(connection_interval_ms=500)
    lazy = ledger(connection_interval_ms=15, peripheral_latency=30)
    assert fast.microamperes()["data"] == slow.microamperes()["data"]
    assert fast.microamperes()["empty events"] > 30 * slow.microamperes()["empty events"]
    assert lazy.microamperes()["empty events"] < fast.microamperes()["empty events"] / 25
    assert sum(slow.microamperes().values()) < 1.05 * 650


def test_silence_costs_its_events_only():
    parts = EnergyLedger(packets=0, packet_bytes=0, seconds=10, connection_interval_ms=1000).microamperes()
    assert parts == {"data": 0.0, "empty events": pytest.approx(empty_event_uj() / 3)}
    with pytest.raises(ValueError, match="ledger"):
        EnergyLedger(packets=1, packet_bytes=100, seconds=0)
