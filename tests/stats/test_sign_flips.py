"""Sign flips over subjects: against scipy's permutation test and nilearn, and noise at its level."""

import numpy as np
import pytest
from scipy import stats

from langcortex.errors import FitError
from langcortex.stats.sign_flips import EXACT, sign_flip, sign_patterns, t_of_flips


@pytest.mark.parametrize(("tail", "alternative"), [("greater", "greater"), ("two", "two-sided")])
def test_few_subjects_try_every_pattern_as_scipy_does(rng, tail, alternative):
    x = rng.standard_normal((7, 5)) + 0.4
    test = sign_flip(x, rng, tail=tail)
    for j in range(5):
        reference = stats.permutation_test(
            (x[:, j],), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
        )
        assert test.p[j] == pytest.approx(reference.pvalue)
    sign = np.abs if tail == "two" else np.asarray
    np.testing.assert_allclose(test.value, sign(stats.ttest_1samp(x, 0).statistic))
    assert str(test.resampling) == (
        "every pattern of signs of subjects, 127 resamples, correction: largest t over all targets, seed: none"
    )


def test_the_correction_agrees_with_nilearn(rng):
    from nilearn.mass_univariate import permuted_ols

    x = rng.standard_normal((16, 30))
    x[:, :4] += 0.8
    test = sign_flip(x, rng, 2000, tail="two")
    reference = permuted_ols(
        np.ones((16, 1)),
        x,
        model_intercept=False,
        n_perm=2000,
        random_state=1,
        two_sided_test=True,
        output_type="dict",
    )
    np.testing.assert_allclose(test.value, np.abs(reference["t"][0]))
    np.testing.assert_allclose(test.p_corrected, 10.0 ** -reference["logp_max_t"][0], atol=0.04)


def test_layers_and_targets_are_one_family_and_keep_their_shape(rng):
    x = rng.standard_normal((9, 3, 4))
    test, flat = sign_flip(x, rng), sign_flip(x.reshape(9, 12), rng)
    assert test.p.shape == (3, 4)
    np.testing.assert_array_equal(test.p_corrected.ravel(), flat.p_corrected)


def test_noise_over_subjects_keeps_the_family_wise_rate(rng):
    wrong = sum(
        (sign_flip(rng.standard_normal((8, 2, 10)), rng).p_corrected <= 0.05).any() for _ in range(400)
    )
    assert stats.binomtest(int(wrong), 400, 0.05).pvalue > 0.001


def test_a_target_that_is_undefined_in_one_subject_is_undefined(rng):
    x = rng.standard_normal((6, 3))
    x[2, 1] = np.nan
    test = sign_flip(x, rng)
    assert np.isnan(test.p).tolist() == [False, True, False]
    np.testing.assert_array_equal(test.p[[0, 2]], sign_flip(x[:, [0, 2]], rng).p)
    with pytest.raises(FitError, match="1 subjects have scores"):
        sign_flip(x[:1], rng)
    with pytest.raises(FitError, match="tail is 'greater' or 'two'; not 'less'"):
        sign_flip(x, rng, tail="less")


def test_patterns_are_all_of_few_units_and_random_ones_of_many(rng):
    patterns = sign_patterns(4, 10, rng, identity=True)
    assert len({tuple(p) for p in patterns.tolist()}) == 16
    np.testing.assert_array_equal(patterns[0], 1.0)
    np.testing.assert_array_equal(sign_patterns(4, 10, rng), patterns[1:])
    many = sign_patterns(EXACT + 1, 10, rng)
    assert many.shape == (10, EXACT + 1)
    assert set(np.unique(many).tolist()) == {-1.0, 1.0}


def test_t_of_equal_scores_is_undefined_at_zero_and_certain_elsewhere():
    scores = np.array([[0.0, 0.5, -0.5]] * 4)
    t = t_of_flips(np.ones((1, 4)), scores, "greater")[0]
    np.testing.assert_array_equal(t, [np.nan, 1e12, -1e12])
    np.testing.assert_array_equal(t_of_flips(np.ones((1, 4)), scores, "two")[0], np.abs(t))
