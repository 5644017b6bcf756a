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
