"""How stored runs become points: what is paired with what, and that test subjects choose nothing."""

import math

import numpy as np
import pytest

from benchmarks.frontier import best_reference, best_within, cheapest, over_folds, paired, points, settings_of
from benchmarks.frontier_plots import runs_of
from benchmarks.grid import FOLDS, GRIDS, Run, folds, runs
from benchmarks.rates import upper_bits
from benchmarks.variants import LOOPS, loop_codes
from quantization.baselines import linear
from quantization.codebook import Codebook


def row(quantizer="gamma", rate=50.0, weight=0.0, *, fold=0, seed=0, test=0.8, validation=0.8, bits=4, loop="plain"):
    return {
        "dataset": "sp_sw_har", "rate_hz": rate, "network": "cnn", "quantizer": quantizer,
        "bits": 12 if quantizer == "none" else bits, "rate_weight": weight, "fold": fold, "seed": seed, "loop": loop,
        "macro_f1": test, "validation_macro_f1": validation, "commit": "c0ffee",
    }  # fmt: skip


def measured(of, bits):
    packets = {f"packets_{s}s": {"payload": bits, "all_in": bits + 0.1, "publish": bits + 0.2} for s in (1, 2)}
    return {**of, "conditional_entropy": bits, "code_length": bits, "validation_payload": bits, **packets}


def test_folds_part_subjects():
    subjects = [f"s{n:02d}" for n in range(18)]
    tested = []
    for fold in range(FOLDS):
        train, validation, test = folds(subjects, fold)
        assert sorted(train + validation + test) == subjects
        assert len(train) >= 9
        assert validation
        tested += test
    assert sorted(tested) == subjects


@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_names_every_run_once_and_rows_name_them_back(grid):
    made = list(runs(grid, "sp_sw_har", seeds=range(2)))
    assert len({run.key for run in made}) == len(made)
    assert all(Run.from_row({**row(), **run.__dict__}) == run for run in made)
    assert {run.seed for run in made} == {0, 1}
    for run in made:
        assert run.settings.fit.rate_weight == run.rate_weight


def test_seeds_are_averaged_before_folds():
    assert over_folds({(0, 0): 0.5, (0, 1): 0.7, (1, 0): 0.8}) == (pytest.approx(0.7), pytest.approx(0.1))


def test_a_difference_is_between_runs_of_the_same_fold_and_seed():
    rng = np.random.default_rng(0)
    hard = {(f, s): float(rng.normal(0.8, 0.1)) for f in range(5) for s in range(3)}
    ours = {key: value - 0.01 for key, value in hard.items()}
    delta, low, high = paired(ours, {**hard, (9, 9): 0.0})
    assert (delta, low, high) == (pytest.approx(-0.01), pytest.approx(-0.01), pytest.approx(-0.01))
    assert all(math.isnan(value) for value in paired(ours, {}))


def some():
    """Two folds: in each, another rate is best on validation, and test scores would choose otherwise."""
    rows = []
    for fold, best in ((0, 50.0), (1, 25.0)):
        for rate in (50.0, 25.0):
            good = rate == best
            rows.append(row("none", rate, fold=fold, test=0.7 if good else 0.9, validation=0.85 if good else 0.8))
            for weight in (0.0, 0.1):
                validation = 0.846 if good else 0.84
                rows.append(row("gamma", rate, weight, fold=fold, test=0.71, validation=validation))
    rates = [measured(r, 1.0 - 5 * r["rate_weight"]) for r in rows if r["quantizer"] == "gamma"]
    return settings_of(rows, rates)


def test_the_reference_is_chosen_on_validation_subjects():
    chosen = best_reference(some().values(), "cnn")
    assert {fold: setting.point[0] for fold, setting in chosen.items()} == {0: 50.0, 1: 25.0}


def test_the_cheapest_within_half_a_point_is_chosen_on_validation_subjects():
    chosen = cheapest(some().values(), "cnn")
    # 25 Hz would be cheaper in fold 0, but loses a full point there.
    assert {fold: (s.point[0], s.point[4]) for fold, s in chosen.items()} == {0: (50.0, 0.1), 1: (25.0, 0.1)}


def test_the_best_within_a_budget_is_chosen_on_validation_subjects():
    rows = [
        row("none", validation=0.9),
        *(row("gamma", weight=w, validation=0.9 - w, test=0.5 + w) for w in (0.0, 0.1, 0.3)),
    ]
    settings = settings_of(rows, [measured(r, 1.0 - r["rate_weight"]) for r in rows if r["quantizer"] == "gamma"])
    assert [s.point[4] for s in best_within(settings.values(), "cnn", 45.0).values()] == [0.1]
    assert [s.point[4] for s in best_within(settings.values(), "cnn", 60.0).values()] == [0.0]
    assert best_within(settings.values(), "cnn", 10.0) == {}


def test_points_have_what_the_documents_quote():
    made = points("sp_sw_har", some())
    (selected,) = [p for p in made if p["selected"] and p["rule"].startswith("cheapest")]
    assert selected["macro_f1_12bit_best"] == pytest.approx(0.7)
    assert selected["delta_macro_f1"] == pytest.approx(0.01)
    assert selected["bps_per_channel_payload"] == pytest.approx((50 * 0.5 + 25 * 0.5) / 2)
    assert selected["choices"] == {
        "0": {"rate_hz": 50.0, "bits": 4, "lambda": 0.1},
        "1": {"rate_hz": 25.0, "bits": 4, "lambda": 0.1},
    }
    (plain,) = [p for p in made if p["quantizer"] == "none" and p["rate_hz"] == 50.0 and not p["selected"]]
    assert plain["bps_per_channel_payload"] == 600.0
    assert plain["bps_per_channel_all_in"] == pytest.approx(600 + 12 * 8 / 2 / 6)
    needed = {
        "dataset", "model", "quantizer", "bits", "rate_hz", "bits_per_sample_all_in", "bps_per_channel_payload",
        "bps_per_channel_all_in", "macro_f1", "macro_f1_12bit_best", "delta_macro_f1", "folds", "seeds", "protocol",
        "commit",
    }  # fmt: skip
    assert all(needed <= set(point) for point in made)


def any_bit_rows():
    return [{**row(loop="any-bit"), "sent_bits": bits} for bits in (4, 3, 2)]


def test_any_bit_runs_are_points_of_their_own():
    assert sorted(point[3] for point in settings_of(any_bit_rows(), [])) == [2, 3, 4]


RNG = np.random.default_rng(0)
BOOK: Codebook = linear(("acc_x",), 3, 50.0, [4.0])


def test_loops_begin_with_the_codes_of_the_thresholds():
    values = np.random.default_rng(0).uniform(-5, 5, (20, 7, 1))
    for loop in LOOPS:
        codes = loop_codes(values, BOOK, loop, RNG)
        assert codes.shape == values.shape
        if loop != "dither":
            assert np.array_equal(codes[:, 0], BOOK.encode_physical(values[:, 0]))


def test_hysteresis_holds_a_code_against_chatter_and_lets_it_follow():
    edge = 1.0
    chatter = (edge + 0.2 * (-1.0) ** np.arange(40))[:, None]
    assert len(np.unique(loop_codes(chatter, BOOK, "plain", RNG))) == 2
    assert len(np.unique(loop_codes(chatter, BOOK, "hysteresis-0.5", RNG))) == 1
    ramp = np.linspace(-4, 4, 200)[:, None]
    lag = BOOK.encode_physical(ramp).astype(int) - loop_codes(ramp, BOOK, "hysteresis-0.5", RNG)
    assert set(np.unique(lag)) == {0, 1}
    assert loop_codes(ramp, BOOK, "hysteresis-0.5", RNG)[-1, 0] == 7


def test_error_feedback_keeps_the_mean():
    values = np.full((400, 1), 0.3)
    assert BOOK.decode(loop_codes(values, BOOK, "plain", RNG)).mean() == pytest.approx(0.5)
    assert BOOK.decode(loop_codes(values, BOOK, "feedback", RNG)).mean() == pytest.approx(0.3, abs=0.01)


def test_the_runs_of_a_selected_point_are_found():
    rows = [row("none"), row("gamma", weight=0.1), row("gamma", bits=2)]
    settings = settings_of(rows, [measured(r, 1.0) for r in rows if r["quantizer"] == "gamma"])
    for point in (p for p in points("sp_sw_har", settings) if p["selected"]):
        assert len(runs_of(point, rows)) == 1


def test_each_depth_of_an_any_bit_network_has_its_own_bandwidth():
    rates = [{**measured(r, float(r["sent_bits"])), "sent_bits": r["sent_bits"]} for r in any_bit_rows()]
    for point, setting in settings_of(any_bit_rows(), rates).items():
        assert setting.bits("payload", (0, 0)) == point[3]


def test_the_upper_bits_codebook_is_what_dropping_bits_does():
    values = np.random.default_rng(0).uniform(-5, 5, (200, 1))
    full = linear(("acc_x",), 4, 50.0, [4.0])
    for shift in (1, 2):
        assert np.array_equal(upper_bits(full, shift).encode_physical(values), full.encode_physical(values) >> shift)
