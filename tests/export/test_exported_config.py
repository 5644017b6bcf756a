"""What stands in a config whose network is an exported file."""

import os

import pytest
from mmengine.config import Config
from torch import nn, zeros

from danseg.engine.config.config_file import load_config
from danseg.errors import UserError
from danseg.export.description import Input, Output
from danseg.export.exported_config import trained_config
from exported_files import described, write

TEXT = """
custom_imports = dict(imports=["a_package_that_is_not_here"])
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[1.0], std=[2.0], bgr_to_rgb=False, pad_val=0),
    backbone=dict(type="a_package_that_is_not_here.Backbone", depth=18),
    decode_head=dict(type="HeadOfAnother", num_classes=2),
    test_cfg=dict(mode="whole"),
)
test_dataloader = dict(dataset=dict(type="CamVidDataset", data_root="data/camvid", pipeline=[
    dict(type="LoadImageFromFile"), dict(type="Normalize", mean=[1], std=[2]), dict(type="PackSegInputs")]))
tta_pipeline = [dict(type="LoadImageFromFile"), dict(type="TestTimeAug", transforms=[
    [dict(type="Resize", scale=(8, 8))], [dict(type="Normalize", mean=[1], std=[2])],
    [dict(type="PackSegInputs")]])]
"""


def written(path, **changes):
    return write(path, nn.Conv2d(3, 2, 3).eval(), zeros(2, 3, 8, 8), described(config=TEXT, **changes))


def types(pipeline):
    return [step["type"] if isinstance(step, dict) else types(step) for step in pipeline]


def test_the_file_stands_in_the_place_of_backbone_and_head(tmp_path, monkeypatch):
    written(tmp_path / "tiny.onnx", output=Output("logits", "float32", True, 0.4))
    monkeypatch.chdir(tmp_path)
    config = trained_config("tiny.onnx", {"test_dataloader.dataset.data_root": "elsewhere"})
    assert config.filename == "tiny.onnx" and config.test_dataloader.dataset.data_root == "elsewhere"
    assert config.model.to_dict() == dict(
        type="LeanEncoderDecoder",
        data_preprocessor=dict(
            type="SegDataPreProcessor", mean=[1.0], std=[2.0], bgr_to_rgb=False, pad_val=0
        ),
        backbone=dict(type="ExportedNetwork", file=os.path.abspath("tiny.onnx"), in_channels=3),
        decode_head=dict(
            type="ExportedHead", num_classes=2, out_channels=1, align_corners=True, threshold=0.4
        ),
        test_cfg=dict(mode="whole"),
    )
    assert types(config.test_dataloader.dataset.pipeline)[1] == "Normalize"


@pytest.mark.parametrize("channels, turned", [("RGB", True), (None, False)])
def test_what_a_file_does_inside_is_not_done_before_it(tmp_path, channels, turned):
    path = written(tmp_path / "tiny.pt", input=Input("image", "uint8", "NHWC", channels))
    config = trained_config(path)
    preprocessor = config.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std, preprocessor.bgr_to_rgb) == (None, None, turned)
    assert types(config.test_dataloader.dataset.pipeline) == ["LoadImageFromFile", "PackSegInputs"]
    [views] = [step.transforms for step in config.tta_pipeline if step.type == "TestTimeAug"]
    assert types(views) == [["Resize"], [], ["PackSegInputs"]]


def test_a_config_is_read_as_ever(tmp_path):
    (tmp_path / "a.py").write_text("model = dict(type='EncoderDecoder')\n")
    assert isinstance(trained_config(tmp_path / "a.py"), Config)
    assert trained_config(tmp_path / "a.py", {"model.type": "B"}).model.type == "B"


@pytest.mark.parametrize(
    "config, said",
    [
        ("import os\nmodel = dict()\n", "cannot be read as data"),
        ("model = dict()\ncustom_hooks = [dict(type='os.system')]\n", "is no registered name"),
        ("a = 1\n", "has no model"),
    ],
)
def test_the_config_of_a_file_runs_no_code(tmp_path, config, said):
    description = described(config=config)
    path = write(tmp_path / "tiny.onnx", nn.Conv2d(3, 2, 3).eval(), zeros(2, 3, 8, 8), description)
    with pytest.raises(UserError, match=said):
        trained_config(path)


def test_other_readers_of_configs_refuse_an_exported_network(tmp_path):
    path = written(tmp_path / "tiny.onnx")
    with pytest.raises(UserError, match=r"tiny\.onnx is an exported network, which .*name a config"):
        load_config(path)
    with pytest.raises(UserError, match=r"--data .*tiny\.onnx carries a config"):
        trained_config(path, None, "set.yaml")
