"""Every statistic against a second computation: enumeration, scipy.stats, or simulation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.drift import statistics

HUNDREDTHS = st.integers(0, 100).map(lambda hundredths: hundredths / 100)
CELLS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=4).filter(
    lambda cells: sum(a for a, _ in cells) > 0 and sum(b for _, b in cells) > 0
)


def sides(cells):
    return np.array([a for a, _ in cells]), np.array([b for _, b in cells])


def every_window(reference, current):
    """Yield every split of the pooled counts with the window's size, and its probability, exactly."""
    pooled, m = reference + current, int(current.sum())
    total = math.comb(int(pooled.sum()), m)
    for window in itertools.product(*(range(count + 1) for count in pooled.tolist())):
        if sum(window) == m:
            ways = math.prod(math.comb(count, hits) for count, hits in zip(pooled.tolist(), window, strict=True))
            yield np.array(window), Fraction(ways, total)


def gap(reference, current):
    n, m = int(reference.sum()), int(current.sum())
    return int(np.abs(reference.cumsum() * m - current.cumsum() * n).max())


# Numbers


@given(CELLS)
def test_the_exact_ks_law_is_the_enumeration_of_all_splits(cells):
    reference, current = sides(cells)
    seen = gap(reference, current)
    pooled = reference + current
    expected = sum(
        chance for window, chance in every_window(reference, current) if gap(pooled - window, window) >= seen
    )
    assert statistics.kolmogorov_exact_p(reference, current) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(30, 50), (200, 40), (300, 300)])
def test_without_ties_the_exact_ks_law_is_scipys(n, m):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n), rng.normal(0.3, size=m)
    cuts = np.append(np.sort(np.concatenate([x, y])), np.inf)
    reference = np.histogram(x, np.append(-np.inf, cuts))[0]
    current = np.histogram(y, np.append(-np.inf, cuts))[0]
    # a histogram's bins are closed on the left, so each holds one value: no ties
    expected = scipy.stats.ks_2samp(x, y, method="exact")
    assert statistics.ks_distance(reference, current) == pytest.approx(expected.statistic)
    assert statistics.kolmogorov_exact_p(reference, current) == pytest.approx(expected.pvalue, rel=1e-6)


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_the_asymptotic_ks_law_bounds_the_exact_one_on_bins(seed):
    rng = np.random.default_rng(seed)
    reference, current = rng.multinomial(800, [0.1] * 10), rng.multinomial(300, [0.1] * 10)
    bound = statistics.kolmogorov_p(statistics.ks_distance(reference, current), 800, 300)
    assert statistics.kolmogorov_exact_p(reference, current) <= bound + 1e-12


def test_the_exact_ks_law_is_fast_and_sane_at_many_bins_and_rows():
    rng = np.random.default_rng(0)
    reference, current = rng.multinomial(40_000, np.full(260, 1 / 260)), rng.multinomial(9_000, np.full(260, 1 / 260))
    p = statistics.kolmogorov_exact_p(reference, current)
    assert 0.3 * statistics.kolmogorov_p(statistics.ks_distance(reference, current), 40_000, 9_000) < p <= 1


@pytest.mark.parametrize("x", [0.5, 1.0, 1.5, 2.5])
def test_with_infinite_degrees_the_t_law_is_kolmogorovs(x):
    assert statistics.t_kolmogorov_p(x, math.inf) == pytest.approx(float(scipy.special.kolmogorov(x)), abs=1e-8)
    assert statistics.t_kolmogorov_p(x, 1e7) == pytest.approx(float(scipy.special.kolmogorov(x)), abs=1e-5)


@given(st.floats(0.4, 20), st.floats(0.4, 20), st.integers(5, 100))
def test_the_t_law_falls_with_x_and_is_heavier_than_kolmogorovs_far_out(x, y, degrees):
    low, high = sorted((x, y))
    assert statistics.t_kolmogorov_p(high, degrees) <= statistics.t_kolmogorov_p(low, degrees) + 1e-9
    if x > 1.5:
        assert statistics.t_kolmogorov_p(x, degrees) >= statistics.t_kolmogorov_p(x, math.inf)


def test_under_four_tenths_nothing_is_significant():
    assert statistics.t_kolmogorov_p(0.39, 5) == 1.0


@given(st.floats(1e-8, 0.2), st.one_of(st.integers(5, 200), st.just(math.inf)))
def test_the_limit_is_where_the_p_is_reached(p, degrees):
    assert statistics.t_kolmogorov_p(statistics.t_kolmogorov_limit(p, degrees), degrees) == pytest.approx(p, rel=1e-5)


# Natural variation


def test_the_block_variance_of_independent_rows_is_one_over_the_rows():
    rng = np.random.default_rng(0)
    shares = rng.multinomial(500, np.full(20, 0.05), size=4000).cumsum(axis=1) / 500
    variance = statistics.block_variance(shares, 500)
    assert variance.factor == pytest.approx(1 / 500, rel=0.05)
    assert variance.degrees == 3999


@pytest.mark.parametrize(
    ("m", "expected"),
    [
        (100, 0.02 * (1 + 1 / 10)),  # as long as the blocks
        (200, 0.02 * (1 + 1 / 10)),  # longer: never better than the blocks
        (50, 0.02 * (1 + 1 / 10) + 1 / 50 - 1 / 100),  # shorter: chance is added
    ],
)
def test_the_variance_factor_follows_the_windows_length(m, expected):
    variance = statistics.BlockVariance(factor=0.02, degrees=9, blocks=10, block_rows=100)
    assert variance.variance_factor(1000, m) == pytest.approx(expected)


def test_the_variance_factor_is_never_below_independence():
    variance = statistics.BlockVariance(factor=0.0, degrees=9, blocks=10, block_rows=100)
    assert variance.variance_factor(1000, 100) == pytest.approx(1 / 1000 + 1 / 100)


def test_equal_variances_are_moderated_to_one_and_different_ones_hardly():
    rng = np.random.default_rng(1)
    same = rng.chisquare(9, 200) / 9
    moderated, degrees = statistics.moderate(same, 9)
    assert degrees > 60
    assert moderated.std() < 0.3 * same.std()
    apart = same * 10 ** rng.normal(0, 2, 200)
    assert statistics.moderate(apart, 9)[1] < 10


@pytest.mark.parametrize("prior", [2.0, 8.0, 30.0])
def test_moderation_finds_the_prior_that_made_the_variances(prior):
    rng = np.random.default_rng(2)
    true = prior * 3.0 / rng.chisquare(prior, 20_000)
    _, degrees = statistics.moderate(true * rng.chisquare(6, 20_000) / 6, 6)
    assert degrees - 6 == pytest.approx(prior, rel=0.15)


def test_moderated_variances_lie_between_their_own_and_the_common_value():
    own = np.random.default_rng(3).chisquare(5, 40)
    moderated, _ = statistics.moderate(own, 5)
    order = np.argsort(own)
    assert (np.diff(moderated[order]) >= 0).all()
    assert moderated.max() <= own.max()
    assert moderated.min() >= own.min()


@given(st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3), st.integers(2, 60))
def test_the_share_test_is_students(difference, degrees):
    expected = 2 * scipy.stats.t.sf(abs(difference), degrees)
    assert statistics.share_t_p(difference, 1.0, degrees) == pytest.approx(expected, rel=1e-9)


def test_no_difference_is_never_significant_and_no_variance_always():
    assert statistics.share_t_p(0.0, 0.0, 5) == 1.0
    assert statistics.share_t_p(0.1, 0.0, 5) == 0.0


def test_the_distance_of_a_block_is_its_ks_distance_from_the_others():
    counts = np.random.default_rng(0).integers(1, 50, (7, 12))
    expected = [statistics.ks_distance(np.delete(counts, b, 0).sum(0), counts[b]) for b in range(7)]
    assert statistics.block_distances(counts) == pytest.approx(expected)


@given(st.lists(HUNDREDTHS, min_size=6, max_size=30), HUNDREDTHS.filter(bool))
def test_the_rank_of_a_distance_bounds_its_p_only_where_a_block_moved_as_far(own, distance):
    as_far = sum(far >= distance for far in own)
    found = statistics.rank_p(distance, np.array(own))
    assert found == pytest.approx((1 + as_far) / (len(own) + 1) if as_far else 0.0, abs=1 / len(own) if as_far else 0.1)


def test_normal_blocks_have_normal_tails_and_blocks_that_jump_have_not():
    rng = np.random.default_rng(6)
    normal = [statistics.tail_degrees(rng.normal(size=(k, 40))) for k in (6, 12, 26) for _ in range(50)]
    assert np.isinf(normal).mean() > 0.9
    assert 4 < statistics.tail_degrees(rng.standard_t(4, (26, 40))) < 15
    constant = np.zeros((26, 3))
    assert statistics.tail_degrees(constant) == math.inf
    jumps = rng.standard_t(3, (26, 40))
    assert statistics.tail_degrees(np.hstack([jumps, constant])) == statistics.tail_degrees(jumps)
    assert statistics.tail_degrees(5 * jumps + 1) == pytest.approx(statistics.tail_degrees(jumps))


@pytest.mark.parametrize("phi", [None, 30.0, 4.0], ids=["independent", "clustered", "strongly clustered"])
def test_categories_that_vary_between_blocks_alarm_no_more_than_asked(phi):
    rng, p, rows, hits = np.random.default_rng(4), np.array([0.4, 0.3, 0.2, 0.05, 0.05]), 400, 0
    for _ in range(400):
        shares = np.tile(p, (11, 1)) if phi is None else rng.dirichlet(phi * p, 11)
        blocks = np.stack([rng.multinomial(rows, share) for share in shares])
        reference, current = blocks[:10], blocks[10]
        p_value = statistics.shares_f_p(
            reference.sum(0) / reference.sum(), current / rows, reference / rows, (int(reference.sum()), rows), rows
        )
        hits += p_value <= 0.05
    assert hits / 400 <= 0.05


# Categories and shares


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 14), st.integers(1, 14))
def test_fisher_is_the_doubled_hypergeometric_tail(x, y, n, m):
    x, y = min(x, n), min(y, m)
    law = scipy.stats.hypergeom(n + m, x + y, m)
    expected = min(1.0, 2 * min(law.cdf(y), law.sf(y - 1)))
    assert statistics.fisher_p(x, n, y, m) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("x", "n", "y", "m"),
    [
        (5_000, 100_000, 700, 10_000),
        (50_000, 100_000, 5_200, 10_000),
        (3, 10**6, 9, 10**5),
        (999_000, 10**6, 99_000, 10**5),
    ],
)
def test_fisher_holds_at_scale(x, n, y, m):
    law = scipy.stats.hypergeom(n + m, x + y, m)
    assert statistics.fisher_p(x, n, y, m) == pytest.approx(min(1, 2 * min(law.cdf(y), law.sf(y - 1))), rel=1e-4)


@given(CELLS)
def test_the_cell_test_is_bonferroni_over_cells_of_two_rows(cells):
    reference, current = sides(cells)
    pooled = reference + current
    used = [j for j in range(pooled.size) if pooled[j] >= 2]
    law = [scipy.stats.hypergeom(int(pooled.sum()), int(pooled[j]), int(current.sum())) for j in used]
    tails = [min(each.cdf(current[j]), each.sf(current[j] - 1)) for each, j in zip(law, used, strict=True)]
    expected = min(1.0, len(used) * 2 * min(tails)) if used else 1.0
    assert statistics.cells_p(reference, current) == pytest.approx(expected, abs=1e-9)


def test_two_samples_without_a_common_value_are_the_extreme_split():
    expected = 4 * math.exp(2 * scipy.special.gammaln(201) - scipy.special.gammaln(401))
    assert statistics.cells_p(np.array([200, 0]), np.array([0, 200])) == pytest.approx(expected, rel=1e-9)


def test_chi_square_on_large_cells_is_scipys():
    reference, current = np.array([400, 300, 300]), np.array([150, 90, 60])
    expected = scipy.stats.chi2_contingency([reference, current], correction=False).pvalue
    assert statistics.chi_square_p(reference, current) == pytest.approx(expected, rel=1e-9)


def test_chi_square_pools_until_the_smaller_sample_expects_five():
    reference, current = np.array([900, 60, 20, 12, 8]), np.array([80, 5, 5, 5, 5])
    # the smaller side holds 1/11 of the rows, so a cell needs 55 pooled rows: {980}, {65}, and the rest of 55
    expected = scipy.stats.chi2_contingency([[900, 60, 40], [80, 5, 15]], correction=False).pvalue
    assert statistics.chi_square_p(reference, current) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("pooled", "least", "expected"),
    [
        ([9, 5, 5], 5, [9, 5, 5]),
        ([9, 3, 2], 5, [9, 5]),
        ([9, 3, 1], 5, [13]),
        ([9, 6, 3, 3, 2], 5, [9, 6, 8]),
        ([2, 1], 5, [3]),
    ],
    ids=["nothing to pool", "two make one", "short rest joins", "short rest joins the last made", "all short"],
)
def test_pooling_joins_the_small_cells(pooled, least, expected):
    reference = np.array(pooled)
    cells, empty = statistics.pool_cells(reference, np.zeros_like(reference), least=least)
    assert cells.tolist() == expected
    assert empty.sum() == 0


def test_one_cell_has_no_chi_square():
    assert statistics.chi_square_p(np.array([10]), np.array([10])) == 1.0


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 20))
def test_new_values_follow_the_negative_binomial_law(new_rows, once, twice):
    n, m = 1000, 200
    v = (once + 2 * twice + 1) / (once + 1)
    shape, q = (once + 1) / v, m / (m + n / v)
    expected = scipy.stats.nbinom.sf(new_rows - 1, shape, 1 - q)
    assert statistics.new_values_p(new_rows, n=n, m=m, once=once, twice=twice) == pytest.approx(expected, rel=1e-6)


def test_no_new_value_is_no_evidence():
    assert statistics.new_values_p(0, n=10, m=10, once=0, twice=0) == 1.0


def test_new_values_of_a_long_tail_alarm_no_more_than_asked():
    rng, hits = np.random.default_rng(5), 0
    weights = 1 / np.arange(1, 3001)
    weights /= weights.sum()
    for _ in range(400):
        reference, current = rng.multinomial(5000, weights), rng.multinomial(500, weights)
        p = statistics.new_values_p(
            int(current[reference == 0].sum()),
            n=5000,
            m=500,
            once=int((reference == 1).sum()),
            twice=int((reference == 2).sum()),
        )
        hits += p <= 0.05
    assert hits / 400 <= 0.08


@given(CELLS)
def test_total_variation_is_half_the_sum_of_gaps_less_chance(cells):
    reference, current = sides(cells)
    raw = statistics.total_variation(reference, current, 0.0)
    n, m = reference.sum(), current.sum()
    assert raw == pytest.approx(sum(abs(a / n - b / m) for a, b in zip(reference, current, strict=True)) / 2)
    assert statistics.total_variation(reference, current, 1 / n + 1 / m) <= raw


def test_chance_alone_moves_no_share():
    rng = np.random.default_rng(6)
    moved = [
        statistics.total_variation(
            rng.multinomial(2000, [0.01] * 100), rng.multinomial(1000, [0.01] * 100), 1 / 2000 + 1 / 1000
        )
        for _ in range(200)
    ]
    assert np.mean(moved) < 0.01


# Numbers that readers know from elsewhere


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_the_mean_move_of_values_with_a_bin_each_is_scipys(before, now):
    edges = np.arange(-5.0, 6.0)
    reference, current = (np.bincount(np.searchsorted(edges, side), minlength=12) for side in (before, now))
    lowest, highest = min(*before, *now), max(*before, *now)
    moved = statistics.wasserstein(edges, reference, current, lowest=lowest, highest=highest)
    assert moved == pytest.approx(scipy.stats.wasserstein_distance(before, now), abs=1e-9)


def test_the_mean_move_of_values_that_share_bins_is_close():
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=20_000), rng.normal(0.2, size=20_000)
    edges = np.quantile(before, np.arange(257) / 256)
    reference, current = (np.bincount(np.searchsorted(edges, side), minlength=258) for side in (before, now))
    lowest, highest = min(before.min(), now.min()), max(before.max(), now.max())
    moved = statistics.wasserstein(edges, reference, current, lowest=lowest, highest=highest)
    assert moved == pytest.approx(scipy.stats.wasserstein_distance(before, now), rel=0.05)


@pytest.mark.parametrize(
    ("reference", "current", "cells"),
    [
        ([1] * 10, [2] * 10, 11),
        ([100], [100], 11),
        ([0, 90, 10, 0], [5, 80, 10, 5], 12),
    ],
    ids=["one per tenth", "one value", "beyond both ends"],
)
def test_tenths_keep_all_rows(reference, current, cells):
    joined = statistics.tenths(np.array(reference), np.array(current))
    assert [side.sum() for side in joined] == [sum(reference), sum(current)]
    assert joined[0].size == joined[1].size == cells
    assert joined[0][0] == reference[0] * (reference[0] == 0)


def test_rare_cells_are_one():
    reference, current = np.array([980, 15, 3, 2, 0]), np.array([10, 20, 30, 40, 50])
    old, new = statistics.frequent_cells(reference, current)
    assert (old.tolist(), new.tolist()) == ([5, 980, 15], [120, 10, 20])


def test_the_index_is_symmetric_and_none_of_its_cells_is_infinite():
    a, b = np.array([50, 50, 0]), np.array([0, 50, 50])
    assert statistics.stability_index(a, b) == pytest.approx(statistics.stability_index(b, a))
    assert statistics.stability_index(a, b) == pytest.approx(2 * (0.5 - 1e-4) * math.log(0.5 / 1e-4))
    assert statistics.stability_index(a, 7 * a) == 0


# Many tests


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8, unique=True), st.integers(0, 5))
def test_holm_is_its_definition_and_tests_not_run_count(values, more):
    tests = len(values) + more
    ranked = sorted(values)
    expected = [
        max(min(1.0, (tests - i) * smaller) for i, smaller in enumerate(ranked) if smaller <= value) for value in values
    ]
    assert statistics.adjust(values, tests=tests, method="holm") == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_hochberg_is_scipys(values):
    assert statistics.adjust(values, tests=len(values), method="bh") == pytest.approx(
        scipy.stats.false_discovery_control(values)
    )
