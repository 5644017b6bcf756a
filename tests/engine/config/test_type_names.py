"""The class that a part of a config names, however it names it."""

import pytest
from mmseg.datasets.transforms import LoadAnnotations, LoadBiomedicalAnnotation, PackSegInputs
from mmseg.registry import TRANSFORMS

from danseg.engine.config.options import without_labels
from danseg.engine.config.type_names import loads_labels, type_name


@pytest.mark.parametrize("kind", ["PackSegInputs", "mmseg.PackSegInputs", PackSegInputs])
def test_a_name_a_scoped_name_and_a_class_are_the_same(kind):
    assert type_name(dict(type=kind)) == "PackSegInputs"
    assert not loads_labels(dict(type=kind))


@pytest.mark.parametrize(
    "kind", ["LoadAnnotations", "mmseg.LoadAnnotations", LoadAnnotations, LoadBiomedicalAnnotation]
)
def test_whatever_loads_labels_is_left_out_of_a_pipeline_and_of_its_views(kind):
    step, other = dict(type=kind), dict(type="PackSegInputs")
    views = dict(type="TestTimeAug", transforms=[[step], [other]])
    pipeline = [step, other, views]
    assert without_labels(pipeline) == [other, dict(type="TestTimeAug", transforms=[[other]])]
    assert views["transforms"] == [[step], [other]]  # the config that was given stays as it was


def test_images_and_pictures_of_mmseg_are_no_labels():
    names = [name for name in TRANSFORMS.module_dict if name.startswith("Load")]
    assert names and {name for name in names if loads_labels(dict(type=name))} == {
        name for name in names if name.removesuffix("s").endswith("Annotation")
    }
