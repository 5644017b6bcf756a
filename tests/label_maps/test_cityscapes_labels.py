"""The label table, compared with that of the official scripts."""

import numpy as np
import pytest

from danseg.label_maps.cityscapes_labels import CLASS_IDS, ID, LABELS, TRAIN_IDS


@pytest.fixture(scope="module")
def official():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    return [label for label in labels if label.id >= 0]


def test_table_is_that_of_cityscapes(official):
    table = [(row.name, row.id, row.trainId, row.hasInstances, row.color) for row in official]
    assert [tuple(label) for label in LABELS] == table
    assert [label.id for label in LABELS] == list(range(34))


def test_conversions_fit_the_table(official):
    assert ID == {row.name: row.id for row in official}
    assert TRAIN_IDS.dtype == np.uint8
    np.testing.assert_array_equal(TRAIN_IDS, [row.trainId for row in official])
    assert len(CLASS_IDS) == 19
    np.testing.assert_array_equal(TRAIN_IDS[list(CLASS_IDS)], np.arange(19))
