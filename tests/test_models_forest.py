"""The hand-made features against numpy and known signals, and the forest on what a network would see."""

from dataclasses import replace

import numpy as np
import pytest
from factories import codebook, sensor

from models.features import BANDS, QUANTILES, window_features
from models.forest import CHUNK, fit_forest
from models.scores import score
from models.windows import Windows
from quantization.baselines import linear
from quantization.errors import CodebookError, TrainingError
from quantization.imu import ACC, ACC_GYRO

RATE = 50


def walk(windows: int = 4, channels: int = 6, length: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((windows, length, channels)).cumsum(axis=1)


def movements(count: int, seed: int, noise: float = 0.1) -> Windows:
    """Two activities that differ in pace alone, at any phase: ``acc`` swings at 1 Hz or at 4 Hz."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count).astype(np.int16)
    pace = np.where(truth == 0, 1.0, 4.0)[:, None] * np.arange(RATE) / RATE + rng.random((count, 1))
    values = noise * rng.standard_normal((count, RATE, 6))
    values[:, :, 0] += np.sin(2 * np.pi * pace)
    return Windows(values.astype(np.float32), truth, np.ones(count, bool), np.full(count, "a"))


def test_features_by_numpy():
    values = walk()
    found = window_features(values)
    for w in range(4):
        for c in range(6):
            x = values[w, :, c]
            unit = (x - x.mean()) / x.std()
            one = {name: table[w, c] for name, table in found.items()}
            assert one["mean"] == pytest.approx(x.mean())
            assert one["std"] == pytest.approx(x.std())
            assert one["energy"] == pytest.approx((x @ x) / 50)
            assert one["step"] == pytest.approx(np.abs(np.diff(x)).mean())
            assert one["skewness"] == pytest.approx((unit**3).mean())
            assert one["kurtosis"] == pytest.approx((unit**4).mean())
            assert one["zero_crossings"] * 49 == pytest.approx(np.count_nonzero(np.diff(np.sign(x))))
            assert one["mean_crossings"] * 49 == pytest.approx(np.count_nonzero(np.diff(np.sign(unit))))
            for name, share in QUANTILES.items():
                assert one[name] == pytest.approx(np.quantile(x, share))
    r = np.corrcoef(values[0].T)
    assert np.allclose(found["correlation"][0], r[np.triu_indices(6, 1)])


def test_lengths_of_triples_stand_after_the_channels_and_do_not_turn():
    values = walk()
    found = window_features(values)
    assert found["mean"].shape == (4, 8)
    assert np.allclose(found["mean"][:, 6], np.linalg.norm(values[..., :3], axis=2).mean(axis=1))
    turned = values.copy()
    turned[..., :3] = values[..., [1, 2, 0]] * [-1, 1, -1]
    again = window_features(turned)
    for name in set(found) - {"correlation"}:
        assert np.allclose(found[name][:, 6:], again[name][:, 6:])
    assert not np.allclose(found["mean"][:, :3], again["mean"][:, :3])
    assert window_features(walk(channels=4))["mean"].shape == (4, 4), "no triples"


@pytest.mark.parametrize("cycles", [2, 7, 20])
def test_the_spectrum_of_a_pure_tone(cycles):
    tone = 3 + np.sin(2 * np.pi * cycles * np.arange(100) / 100 + 0.4)
    found = {name: table[0, 0] for name, table in window_features(tone[None, :, None]).items() if table.size}
    assert found["frequency"] == pytest.approx(cycles / 100)
    assert 0.6 < found["frequency_share"] < 0.7, "a Hann window leaves 2/3 in the bin and 1/6 in each beside it"
    assert found["spectral_entropy"] == pytest.approx(-(2 / 3 * np.log(2 / 3) + 2 / 6 * np.log(1 / 6)), abs=0.01)
    bands = np.array([found[f"band_{index}"] for index in range(len(BANDS))])
    assert bands.sum() == pytest.approx(1)
    assert bands.argmax() == np.searchsorted(BANDS, cycles / 50)


def test_gain_changes_no_shape_and_no_spectrum():
    values = walk()
    found, louder = window_features(values), window_features(5 * values)
    for name in ("skewness", "kurtosis", "frequency", "spectral_entropy", "correlation", "mean_crossings"):
        assert np.allclose(found[name], louder[name]), name
    for name in ("mean", "std", "step", *QUANTILES):
        assert np.allclose(5 * found[name], louder[name]), name


@pytest.mark.parametrize("length", [2, 8, 50])
@pytest.mark.parametrize("channels", [1, 3, 6, 16])
def test_a_constant_window_is_no_trouble(length, channels):
    found = window_features(np.full((2, length, channels), 0.1))
    assert all(np.isfinite(table).all() for table in found.values())
    for name in ("skewness", "kurtosis", "frequency", "spectral_entropy", "mean_crossings", "band_0"):
        assert not found[name].any(), name
    assert np.isfinite(window_features(walk(2, channels, length))["correlation"]).all()


@pytest.mark.parametrize("book", [None, codebook()], ids=["counts", "codes"])
def test_it_learns_and_says_the_same_again(book):
    train, held_out = movements(300, 0), movements(200, 1)
    forest = fit_forest(train, book, sensor(), classes=2, seed=0, trees=20)
    said = forest.probabilities(held_out)
    assert said.shape == (200, 2)
    assert said.dtype == np.float32
    assert np.allclose(said.sum(axis=1), 1, atol=1e-5)
    assert score(held_out, said).macro_f1 > 0.95
    assert np.array_equal(said, fit_forest(train, book, sensor(), classes=2, seed=0, trees=20).probabilities(held_out))
    assert not np.array_equal(
        said, fit_forest(train, book, sensor(), classes=2, seed=1, trees=20).probabilities(held_out)
    )


def test_it_sees_what_the_quantizer_leaves_and_nothing_else():
    """One threshold far above all movement: every code is the same, and so is every answer."""
    train = movements(100, 0)
    blind = linear(ACC_GYRO, 1, 50.0, [1.0] * 6)
    blind = replace(blind, thresholds=np.full((6, 1), 50.0), levels=np.tile([0.0, 100.0], (6, 1)))
    said = fit_forest(train, blind, sensor(), classes=2, seed=0, trees=20).probabilities(train)
    assert (said == said[0]).all()


def test_beyond_the_adc_s_range_all_is_one():
    train, loud = movements(100, 0), movements(20, 1)
    forest = fit_forest(train, None, sensor(), classes=2, seed=0, trees=20)
    louder, loudest = (replace(loud, values=loud.values + np.float32(shift)) for shift in (5000, 9000))
    assert np.array_equal(forest.probabilities(louder), forest.probabilities(loudest))


def test_unlabelled_windows_teach_nothing_and_an_unseen_class_gets_nothing():
    train = movements(100, 0)
    strange = replace(movements(50, 2, noise=5.0), truth=np.full(50, -1, np.int16))
    both = Windows(
        *(
            np.concatenate([getattr(train, name), getattr(strange, name)])
            for name in ("values", "truth", "pure", "subject")
        )
    )
    plain = fit_forest(train, codebook(), sensor(), classes=2, seed=0, trees=20).probabilities(train)
    padded = fit_forest(both, codebook(), sensor(), classes=4, seed=0, trees=20).probabilities(train)
    assert np.array_equal(plain, padded[:, :2])
    assert not padded[:, 2:].any()
    with pytest.raises(TrainingError, match="labelled"):
        fit_forest(strange, None, sensor(), classes=2, seed=0, trees=20)


def test_an_answer_depends_on_its_window_alone():
    """Also across the chunks that features are computed in."""
    forest = fit_forest(movements(60, 0), codebook(), sensor(), classes=2, seed=0, trees=20)
    many = movements(CHUNK + 3, 1)
    said = forest.probabilities(many)
    for at in (0, CHUNK - 1, CHUNK, CHUNK + 2):
        alone = np.zeros(len(many), bool)
        alone[at] = True
        assert np.allclose(forest.probabilities(many.where(alone))[0], said[at])


def test_a_codebook_for_other_channels_is_refused():
    with pytest.raises(CodebookError, match="the sensor gives"):
        fit_forest(movements(20, 0), codebook(ACC), sensor(), classes=2, seed=0, trees=20)
