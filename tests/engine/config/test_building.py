"""Types and arguments that do not exist, and errors of constructors: each message names the place."""

import importlib.util

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS

from broken_config import messages, only_names, tiny_with
from danseg.engine.config.building import naming_places, place_of, unknown_names
from danseg.errors import UserError


def found_in(change, task="train"):
    config = tiny_with({})
    change(config)
    return list(unknown_names(config, task))


@pytest.mark.parametrize(
    ("place", "wrong", "right"),
    [
        ("model.type", "LeanEncoderDecodr", "LeanEncoderDecoder"),
        ("model.data_preprocessor.type", "SegDataPreprocesor", "SegDataPreProcessor"),
        ("model.backbone.type", "ResNetV1cc", "ResNetV1c"),
        ("model.backbone.norm_cfg.type", "SyncBNN", "SyncBN"),
        ("model.decode_head.type", "DANetHed", "DANetHead"),
        ("model.decode_head.loss_decode.type", "CrossEntropyLos", "CrossEntropyLoss"),
        ("model.auxiliary_head.type", "FCNHed", "FCNHead"),
        ("train_dataloader.dataset.type", "CityscapesDatset", "CityscapesDataset"),
        ("train_dataloader.dataset.pipeline.3.type", "RandomCropp", "RandomCrop"),
        ("train_dataloader.sampler.type", "InfinitSampler", "InfiniteSampler"),
        ("val_dataloader.dataset.type", "CityscapesDatset", "CityscapesDataset"),
        ("val_dataloader.dataset.pipeline.0.type", "LoadImageFromFil", "LoadImageFromFile"),
        ("val_dataloader.sampler.type", "DefaultSmpler", "DefaultSampler"),
        ("val_evaluator.type", "ExactIouMetric", "ExactIoUMetric"),
        ("train_cfg.type", "IterBasedTrainLop", "IterBasedTrainLoop"),
        ("val_cfg.type", "ValLop", "ValLoop"),
        ("optim_wrapper.type", "OptimWraper", "OptimWrapper"),
        ("optim_wrapper.optimizer.type", "SDG", "SGD"),
        ("param_scheduler.0.type", "PollyLR", "PolyLR"),
        ("default_hooks.logger.type", "LogerHook", "LoggerHook"),
        ("visualizer.type", "SegLocalVisualiser", "SegLocalVisualizer"),
        ("visualizer.vis_backends.0.type", "LocalVisBakend", "LocalVisBackend"),
    ],
)
def test_a_type_that_does_not_exist(place, wrong, right):
    (message,) = list(unknown_names(tiny_with({place: wrong}), "train"))
    assert message.startswith(f"{place}={wrong!r}: there is no such ")
    assert f"did you mean {right!r}?" in message


def test_types_of_a_test():
    for place in ("test_dataloader.dataset.pipeline.0.type", "test_evaluator.type", "test_cfg.type"):
        options = {place: "Nothing"}
        only_names(list(unknown_names(tiny_with(options), "test")), place)
        assert list(unknown_names(tiny_with(options), "train")) == []


NOTHING = dict(type="Nothing")


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("optim_wrapper.constructor", "Nothing", "optim_wrapper.constructor"),
        ("train_dataloader.collate_fn", NOTHING, "train_dataloader.collate_fn.type"),
        ("train_dataloader.batch_sampler", NOTHING, "train_dataloader.batch_sampler.type"),
        ("val_dataloader.worker_init_fn", NOTHING, "val_dataloader.worker_init_fn.type"),
        ("custom_hooks", [NOTHING], "custom_hooks.0.type"),
        ("log_processor", NOTHING, "log_processor.type"),
        ("model_wrapper_cfg", NOTHING, "model_wrapper_cfg.type"),
        ("model.neck", NOTHING, "model.neck.type"),
        ("model.decode_head.sampler", NOTHING, "model.decode_head.sampler.type"),
        ("model.backbone.init_cfg", NOTHING, "model.backbone.init_cfg.type"),
        ("model.backbone.plugins", [dict(cfg=NOTHING)], "model.backbone.plugins.0.cfg.type"),
        ("val_evaluator", dict(metrics=[NOTHING]), "val_evaluator.metrics.0.type"),
        ("val_evaluator", [dict(type="ExactIoUMetric"), NOTHING], "val_evaluator.1.type"),
        (
            "train_dataloader.dataset",
            dict(type="RepeatDataset", times=2, dataset=dict(type="CityscapesDataset", pipeline=[NOTHING])),
            "train_dataloader.dataset.dataset.pipeline.0.type",
        ),
        (
            "train_dataloader.dataset.pipeline",
            [dict(type="RandomApply", transforms=[dict(type="PackSegInputs"), NOTHING])],
            "train_dataloader.dataset.pipeline.0.transforms.1.type",
        ),
    ],
)
def test_types_that_few_configs_name(place, value, named):
    only_names(list(unknown_names(tiny_with({place: value}), "train")), named)


@pytest.mark.parametrize(
    ("place", "value", "near"),
    [
        (
            "model.decode_head.pam_chanels",
            4,
            "DANetHead has no argument 'pam_chanels'; did you mean 'pam_channels'?",
        ),
        (
            "model.decode_head.num_clases",
            4,
            "DANetHead has no argument 'num_clases'; did you mean 'num_classes'?",
        ),
        ("model.auxiliary_head.num_conv", 2, "FCNHead has no argument 'num_conv'; did you mean 'num_convs'?"),
        (
            "model.backbone.dilation",
            (1, 1, 1, 1),
            "ResNetV1c has no argument 'dilation'; did you mean 'dilations'?",
        ),
        ("model.decode_head.loss_decode.use_sigmod", True, "did you mean 'use_sigmoid'?"),
        ("model.pretraned", None, "did you mean 'pretrained'?"),
        ("model.data_preprocessor.bgr2rgb", True, "did you mean 'bgr_to_rgb'?"),
        (
            "train_dataloader.num_wokers",
            2,
            "DataLoader has no argument 'num_wokers'; did you mean 'num_workers'?",
        ),
        ("train_dataloader.dataset.data_rot", "a", "did you mean 'data_root'?"),
        ("train_dataloader.dataset.pipeline.3.cat_max_rato", 0.7, "did you mean 'cat_max_ratio'?"),
        ("val_dataloader.sampler.shufle", False, "did you mean 'shuffle'?"),
        ("val_evaluator.iou_metric", "mIoU", "did you mean 'iou_metrics'?"),
        ("train_cfg.max_iter", 3, "did you mean 'max_iters'?"),
        ("val_cfg.fp61", True, "did you mean 'fp16'?"),
        ("optim_wrapper.clip_grads", dict(max_norm=1), "did you mean 'clip_grad'?"),
        ("optim_wrapper.optimizer.momentun", 0.9, "did you mean 'momentum'?"),
        ("param_scheduler.0.powr", 0.9, "did you mean 'power'?"),
        ("default_hooks.checkpoint.save_bst", "mIoU", "did you mean 'save_best'?"),
        ("default_hooks.logger.intervall", 1, "did you mean 'interval'?"),
        ("log_processor.by_epochs", False, "did you mean 'by_epoch'?"),
        ("visualizer.alfa", 0.5, "did you mean 'alpha'?"),
    ],
)
def test_an_argument_that_does_not_exist(place, value, near):
    found = [one for one in unknown_names(tiny_with({place: value}), "train")]
    only_names(found, place)
    assert near in found[0] and repr(value)[:10] in found[0]


def test_the_message_about_an_argument_is_whole():
    (message,) = list(unknown_names(tiny_with({"model.decode_head.pam_chanels": 7}), "train"))
    place, reason = message.split(": ")
    assert place == "model.decode_head.pam_chanels=7"
    assert reason == "DANetHead has no argument 'pam_chanels'; did you mean 'pam_channels'?"


def test_an_argument_that_is_missing():
    assert found_in(lambda c: c.model.decode_head.pop("pam_channels")) == [
        "model.decode_head.pam_channels is missing: DANetHead needs it"
    ]
    assert found_in(lambda c: c.train_cfg.pop("max_iters")) == [
        "train_cfg.max_iters is missing: IterBasedTrainLoop needs it"
    ]
    assert found_in(lambda c: c.model.decode_head.pop("type"))[0].startswith("model.decode_head has no type")


def test_a_depth_that_does_not_exist():
    (message,) = list(unknown_names(tiny_with({"model.backbone.depth": 19}), "train"))
    assert message == "model.backbone.depth=19: ResNetV1c has 18, 34, 50, 101, 152"


def test_several_faults_are_one_message():
    options = {"model.backbone.depth": 19, "val_evaluator.type": "Nothing", "optim_wrapper.optimizer.rl": 1}
    assert len(messages(options)) == 3


@pytest.mark.parametrize("package", ["wandb", "tensorboard", "mlflow"])
def test_a_package_that_a_back_end_needs(package, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    kind = {"wandb": "WandbVisBackend", "tensorboard": "TensorboardVisBackend", "mlflow": "MLflowVisBackend"}
    (message,) = found_in(lambda c: c.visualizer.vis_backends.append(dict(type=kind[package])))
    assert message.startswith("visualizer.vis_backends.1.type=") and f"pip install {package}" in message


def test_a_scope_whose_package_is_not_installed():
    (message,) = list(unknown_names(tiny_with({"model.backbone.type": "mmpretrain.ConvNeXt"}), "train"))
    assert (
        message.startswith("model.backbone.type='mmpretrain.ConvNeXt'")
        and "pip install mmpretrain" in message
    )


@MODELS.register_module()
class _TakesAnything(torch.nn.Module):
    def __init__(self, width, **kwargs):
        super().__init__()
        self.layer = torch.nn.Linear(width, **kwargs)


@MODELS.register_module()
class _Pops(_TakesAnything):
    def __init__(self, **kwargs):
        self.extra = kwargs.pop("extra", None)
        super().__init__(**kwargs)


@MODELS.register_module()
class _Closed(torch.nn.Module):
    def __init__(self, width=1, **kwargs):
        super().__init__()


@HOOKS.register_module()
class _OwnHook(Hook):
    def __init__(self, every):
        pass


HEAD = tiny_with({}).model.decode_head


@pytest.mark.parametrize(
    "options",
    [
        {"model.neck": dict(type="_TakesAnything", width=3, out_features=4)},
        {"model.neck": dict(type="_Pops", width=3, extra=4)},
        {"model.neck": dict(type=_TakesAnything, width=3, anything=4)},
        {"model.decode_head.type": "danseg.heads.DANetHead"},
        {"model.auxiliary_head.type": "mmseg.FCNHead"},
        {
            "model.decode_head": dict(
                {k: v for k, v in HEAD.items() if k != "pam_channels"},
                type="AttentionHead",
                attention=dict(type="CBAM", reduction=4),
            )
        },
        {"model.backbone.plugins": [dict(cfg=dict(type="danseg.CBAM"), position="after_conv3")]},
        {"custom_hooks": [dict(type=_OwnHook, every=3, priority="LOW")]},
        {"optim_wrapper.optimizer": dict(type=torch.optim.AdamW, lr=0.1, foreach=False)},
        {"optim_wrapper.optimizer": dict(type="torch.optim.AdamW", lr=0.1)},
        {"optim_wrapper.optimizer": dict(type="RMSprop", lr=0.1, alpha=0.9)},
        {"param_scheduler": None},
        {"default_hooks": None, "visualizer": None, "log_processor": None},
        {"default_hooks.logger": None},
        {"train_dataloader.batch_sampler": dict(type="torch.utils.data.BatchSampler", drop_last=True)},
        {"train_dataloader.collate_fn": dict(type="default_collate")},
        {
            "train_dataloader.dataset.pipeline.3": dict(
                type="Albu", transforms=[dict(type="HorizontalFlip", p=0.5)]
            )
        },
    ],
    ids=str,
)
def test_what_exists_is_not_refused(options):
    assert list(unknown_names(tiny_with(options), "train")) == []


def test_arguments_that_a_class_swallows_are_refused():
    only_names(
        list(unknown_names(tiny_with({"model.neck": dict(type="_Closed", widht=3)}), "train")),
        "model.neck.widht",
    )


@pytest.mark.parametrize(
    ("options", "place", "reason"),
    [
        ({"model.backbone.num_stages": 9}, "model.backbone", "num_stages"),
        (
            {"model.decode_head.with_pam": False, "model.decode_head.with_cam": False},
            "model.decode_head",
            "branch",
        ),
    ],
)
def test_an_error_of_a_constructor_names_the_place(options, place, reason):
    config = tiny_with(options)
    with pytest.raises(UserError, match=rf"config .*tiny\.py: {place} \(.*{reason}"), naming_places(config):
        MODELS.build(config.model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model.backbone.depth": 19}, r"model\.backbone\.depth=19: ResNetV1c has 18, 34, 50, 101, 152"),
        (
            {"model.decode_head.pam_chanels": 7},
            r"DANetHead has no argument 'pam_chanels'; did you mean 'pam_ch",
        ),
        (
            {"model.decode_head.type": "DANetHed"},
            r"model\.decode_head\.type='DANetHed'.*did you mean 'DANetHead'",
        ),
    ],
    ids=str,
)
def test_names_that_only_a_constructor_meets(options, message):
    config = tiny_with(options)
    with pytest.raises(UserError, match=rf"config .*tiny\.py: .*{message}"), naming_places(config):
        MODELS.build(config.model)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("visualizer.vis_backends", ["LocalVisBackend"], "visualizer.vis_backends.0"),
        ("custom_hooks", ["EMAHook"], "custom_hooks.0"),
        ("param_scheduler", "PolyLR", "param_scheduler"),
        ("val_evaluator", "mIoU", "val_evaluator"),
        ("val_dataloader.dataset.pipeline", ["LoadImageFromFile"], "val_dataloader.dataset.pipeline.0"),
        ("optim_wrapper", "SGD", "optim_wrapper"),
    ],
)
def test_a_text_in_the_place_of_a_dict(place, value, named):
    only_names(list(unknown_names(tiny_with({place: value}), "train")), named)


def test_a_list_of_loaders():
    config = tiny_with({})
    config.val_dataloader = [config.val_dataloader, config.val_dataloader]
    (message,) = list(unknown_names(config, "train"))
    assert message.startswith("val_dataloader=[") and "type='ConcatDataset'" in message


def test_an_error_outside_the_building_stays_as_it_is():
    with pytest.raises(ValueError, match="^mine$"), naming_places(tiny_with({})):
        raise ValueError("mine")


def test_a_bug_in_a_users_class_keeps_its_traceback():
    @MODELS.register_module(force=True)
    class _Buggy(torch.nn.Module):
        def __init__(self):
            {}["none"]

    config = tiny_with({})
    config.model.backbone = dict(type="_Buggy")
    with pytest.raises(KeyError, match="none"), naming_places(config):
        MODELS.build(config.model.backbone)


def test_the_places_of_equal_parts_are_all_named():
    config = tiny_with({})
    assert place_of(config, config.val_evaluator) == "val_evaluator and test_evaluator"
    assert place_of(config, dict(type="DANetHead", in_channels=64)) == "model.decode_head"
