# Dilated EPSANet-50 with EPSANetHead on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# No figure is published for this network, nor weights of its backbone, which starts from scratch.
_base_ = [
    "./_base_/models/dilated_resnet.py",
    "./_base_/datasets/ade20k.py",
    "./_base_/schedules/schedule_160k.py",
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
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(num_classes=_base_.num_classes),
)
