import numpy as np
import pytest

from danseg.evaluation.attention_measures import as_shares, difference, entropy, mean_distance


def test_entropy_is_1_of_equal_shares_and_0_of_a_single_cell():
    rows = np.zeros((4, 8))
    rows[0] = 1 / 8
    rows[1, 5] = 1
    rows[2, :2] = 0.5  # log 2 of log 8
    rows[3, :4] = 0.25
    np.testing.assert_allclose(entropy(rows), [1, 0, 1 / 3, 2 / 3], atol=1e-12)
    assert entropy(np.ones((2, 1))).tolist() == [1, 1]


def test_shares_of_signed_weights_are_by_size_and_nothing_is_all_alike():
    found = as_shares(np.array([[1, -3, 0, 4], [0, 0, 0, 0]], np.float32))
    np.testing.assert_allclose(found, [[1 / 8, 3 / 8, 0, 0.5], [0.25] * 4])


def test_distance_is_weighted_by_the_shares():
    centres = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 10.0]])
    shares = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0.2, 0.8]])
    found = mean_distance(shares, centres, np.array([[0, 0], [0, 0], [0, 10]]))
    np.testing.assert_allclose(found, [0, 2.5, 0.2 * np.hypot(3, 6)])


def test_difference_is_what_would_have_to_move():
    assert difference(np.full((5, 4), 0.25)) == 0
    assert difference(np.eye(4)) == pytest.approx(0.75)  # of each, a quarter lies in the mean's own place
    half = np.array([[0.5, 0.5, 0], [0.5, 0, 0.5]])
    assert difference(half) == pytest.approx(0.25)
    assert np.isnan(difference(np.ones((1, 3)) / 3))
