"""The colours are Pascal VOC's, and all differ."""

from danseg.label_maps.class_colours import default_colours, voc_colour


def test_the_published_colour_map():
    # aeroplane, bicycle, bird, boat, cat, tv monitor and the border, as in VOC's own masks
    published = {1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    published |= {0: (0, 0, 0), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {number: voc_colour(number) for number in published} == published


def test_each_class_has_its_own():
    names = [f"class {number}" for number in range(255)]
    colours = default_colours(names)
    assert len(set(colours)) == 255 and (0, 0, 0) not in colours
    assert default_colours(["Background", *names[:3]]) == ((0, 0, 0), *colours[:3])
