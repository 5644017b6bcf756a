# Dilated EPSANet-50 with EPSANetHead on Cityscapes, crops of 769x769, tested by sliding windows.
# 80k iterations of 8 images (4 GPUs x 2).
# No figure is published for this network, nor weights of its backbone, which starts from scratch.
_base_ = [
    "./_base_/models/dilated_resnet.py",
    "./_base_/datasets/cityscapes.py",
    "./_base_/schedules/schedule_80k.py",
    "./_base_/runtime.py",
]

recompute = ["backbone.layer1", "backbone.layer2"]  # its stem is one convolution

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained=None,
    backbone=dict(type="VariantResNet", conv2="pyramid_split"),
    decode_head=dict(
        type="EPSANetHead",
        in_channels=2048,
        in_index=3,
        channels=512,
        reduction=16,
        dropout_ratio=0.1,
        num_classes=_base_.num_classes,
        norm_cfg=_base_.norm_cfg,
        align_corners=True,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(num_classes=_base_.num_classes, align_corners=True),
    test_cfg=dict(mode="slide", crop_size=_base_.crop_size, stride=(513, 513)),
)
