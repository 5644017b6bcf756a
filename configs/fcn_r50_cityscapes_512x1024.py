# FCN (no attention) with a dilated ResNet-50-v1c on Cityscapes, crops of 512x1024, tested on whole frames.
# 80k iterations of 8 images (4 GPUs x 2).
# Published: mIoU 73.61 at one scale, 74.24 at six scales with flips (mmsegmentation model zoo).
_base_ = [
    "./_base_/models/dilated_resnet.py",
    "./_base_/datasets/cityscapes_512x1024.py",
    "./_base_/schedules/schedule_80k.py",
    "./_base_/runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(
        type="FullyConvolutionalHead",
        in_channels=2048,
        in_index=3,
        channels=512,
        num_convs=2,
        concat_input=True,
        dropout_ratio=0.1,
        num_classes=_base_.num_classes,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(num_classes=_base_.num_classes),
)
