# Networks on CamVid at half resolution: a ResNet-18 from scratch, heads of a quarter of the width, a short
# schedule, tested on whole frames.
_base_ = [
    "../models/dilated_resnet.py",
    "../datasets/camvid.py",
    "../schedules/camvid.py",
    "../runtime.py",
]

norm_cfg = dict(type="BN", requires_grad=True)  # eight images on one device need no synchronisation
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained=None,
    backbone=dict(depth=18, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=512, channels=128, num_classes=_base_.num_classes, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes=_base_.num_classes, norm_cfg=norm_cfg),
)
