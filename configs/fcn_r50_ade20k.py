# FCN (no attention) with a dilated ResNet-50-v1c on ADE20K, crops of 512x512, tested on whole images.
# 160k iterations of 16 images (4 GPUs x 4).
# Published: mIoU 36.10 at one scale, 38.08 at six scales with flips (mmsegmentation model zoo).
_base_ = [
    "./_base_/models/dilated_resnet.py",
    "./_base_/datasets/ade20k.py",
    "./_base_/schedules/schedule_160k.py",
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
