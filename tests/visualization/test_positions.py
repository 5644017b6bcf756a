import numpy as np

from danseg.visualization import segment_centres


def test_centres_lie_inside_the_largest_segments_of_different_classes():
    labels = np.zeros((40, 60), dtype=np.int64)
    labels[:, 30:] = 1  # two halves of the same size
    labels[5:15, 5:15] = 2
    labels[20:24, 40:44] = 3
    labels[30:39, 45:54] = 2
    centres = segment_centres(labels, 3)
    found = [int(labels[y, x]) for x, y in centres]
    assert sorted(found[:2]) == [0, 1] and found[2] == 2
    x, y = centres[2]
    assert 8 <= x <= 11 and 8 <= y <= 11  # the larger of the two regions of class 2


def test_the_edge_of_the_image_ends_a_segment():
    labels = np.zeros((40, 60), dtype=np.int64)
    labels[:, 32:] = 1
    (x, y), (other_x, other_y) = segment_centres(labels, 2)
    assert abs(x - 15.5) <= 1 and abs(y - 19.5) <= 4.5
    assert abs(other_x - 45.5) <= 1 and abs(other_y - 19.5) <= 6.5


def test_the_middle_of_a_ring_is_on_the_ring():
    labels = np.zeros((41, 41), dtype=np.int64)
    labels[3:38, 3:38] = 1
    labels[12:29, 12:29] = 0
    for x, y in segment_centres(labels, 2):
        assert not (x == 20 and y == 20) or labels[y, x] == 0
    found = {int(labels[y, x]) for x, y in segment_centres(labels, 2)}
    assert found == {0, 1}


def test_few_classes_give_further_segments_and_never_more_than_there_are():
    labels = np.zeros((20, 30), dtype=np.int64)
    labels[:, 10:12] = 1
    assert len(segment_centres(labels, 3)) == 3
    assert len(segment_centres(labels, 9)) == 3
    assert segment_centres(np.zeros((9, 9), dtype=np.int64), 5) == [(4, 4)]
