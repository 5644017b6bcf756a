import pytest

from danseg.errors import UserError
from danseg.export.normalisation import normalisation
from few_layers import few_layers, few_layers_model

NORMALIZE = dict(type="Normalize", mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
NOTHING = dict(mean=None, std=None, bgr_to_rgb=False)


def found(*steps, loader=None, channels=3, **preprocessor):
    config = few_layers(channels=channels, data_preprocessor=preprocessor)
    first, *others = config.test_dataloader.dataset.pipeline
    config.test_dataloader.dataset.pipeline = [{**first, **(loader or {})}, *steps, *others]
    return normalisation(few_layers_model(config))


def test_that_of_the_data_preprocessor():
    one = found()
    assert (one.bands, one.channels, one.fault, one.step) == (3, "RGB", None, None)
    assert (one.mean, one.std) == ((123, 116, 104), (58, 57, 56))
    assert found(bgr_to_rgb=False).channels == "BGR"
    assert (
        found(bgr_to_rgb=False, rgb_to_bgr=True).channels == "RGB"
    )  # mmseg's names; files are loaded as BGR
    one = found(**NOTHING)
    assert (one.channels, one.mean, one.std) == ("BGR", None, None)


def test_that_of_the_pipeline():
    one = found(NORMALIZE, **NOTHING)
    assert (one.channels, one.mean, one.std, one.fault) == ("RGB", (1, 2, 3), (4, 5, 6), None)
    assert found({**NORMALIZE, "to_rgb": False}, **NOTHING).channels == "BGR"


@pytest.mark.parametrize("preprocessor", [{}, {**NOTHING, "bgr_to_rgb": True}])
def test_two_are_refused(preprocessor):
    with pytest.raises(UserError, match="both the test pipeline .Normalize. and model.data_preprocessor"):
        found(NORMALIZE, **preprocessor)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_have_no_order(channels):
    assert found(channels=channels).channels is None and found(channels=channels).bands == channels


def test_pictures_of_8_bits_may_be_something_else():
    assert found(dict(type="Resize", scale=(40, 40))).fault is None
    assert "the step CLAHE, which may change pixels" in found(dict(type="CLAHE")).fault
    assert "loads pictures as they are stored" in found(loader=dict(color_type="unchanged")).fault
