import pytest

from danseg import apis
from danseg.errors import UserError


def test_model_carries_the_classes_and_colours_of_its_data_set(camvid, make_config):
    from danseg.datasets import CamVidDataset

    config = make_config(camvid)
    model = apis.load_model(config, None, "cpu")
    assert model.dataset_meta["classes"] == CamVidDataset.METAINFO["classes"]
    assert [list(colour) for colour in model.dataset_meta["palette"]] == CamVidDataset.METAINFO["palette"]
    assert not model.training
    assert config.model.pretrained == "open-mmlab://resnet18_v1c", "the caller's config was changed"
    config.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[config.test_dataloader.dataset])
    assert apis.dataset_meta(config)["classes"] == CamVidDataset.METAINFO["classes"]


def test_weights_of_another_network_are_refused(camvid, tmp_path, make_config, make_checkpoint):
    checkpoint = make_checkpoint(make_config(camvid), tmp_path / "weights.pth")
    other = make_config(camvid, head=dict(type="FCNHead", num_convs=1))
    with pytest.raises(UserError, match="weights.pth"):
        apis.load_model(other, checkpoint, "cpu")


@pytest.mark.parametrize(
    ("channels", "values", "message"),
    [
        (1, 3, r"data_preprocessor.mean has 3 values, but model.backbone takes 1 channels.*give 1, or one"),
        (3, 4, "mean has 4 values.*takes 3"),
        (4, 3, "mean has 3 values.*takes 4"),
    ],
)
def test_a_normalisation_of_other_channels_is_refused(camvid, make_config, channels, values, message):
    config = make_config(camvid)
    config.model.backbone.in_channels = channels
    config.model.data_preprocessor.update(mean=[1.0] * values, std=[1.0] * values)
    with pytest.raises(UserError, match=message):
        apis.load_model(config, None, "cpu")


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_one_value_for_all_channels_or_none_is_fine(camvid, make_config, channels):
    config = make_config(camvid)
    config.model.backbone.in_channels = channels
    for values in ([1.0], None):
        config.model.data_preprocessor.update(mean=values, std=values)
        apis.load_model(config, None, "cpu")
