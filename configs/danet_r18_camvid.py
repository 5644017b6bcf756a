# DANet with a dilated ResNet-18 on CamVid at half resolution, trained from scratch in total batches of 8.
# No figure is published for this recipe; fcn_r18_camvid.py is the same network without attention.
_base_ = [
    "./_base_/models/dilated_resnet.py",
    "./_base_/datasets/camvid.py",
    "./_base_/schedules/camvid.py",
    "./_base_/runtime.py",
]

norm_cfg = dict(type="BN", requires_grad=True)  # eight images on one device need no synchronisation
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained=None,
    backbone=dict(depth=18, norm_cfg=norm_cfg),
    decode_head=dict(
        type="DANetHead",
        in_channels=512,
        in_index=3,
        channels=128,
        pam_channels=16,
        with_pam=True,
        with_cam=True,
        dropout_ratio=0.1,
        num_classes=_base_.num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes=_base_.num_classes, norm_cfg=norm_cfg),
)
