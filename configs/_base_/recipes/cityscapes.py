# Networks on Cityscapes, crops of 769x769: 80k iterations, tested by windows of the crop's size. Sides of
# 8n + 1 are resized with their corners aligned.
_base_ = [
    "../models/dilated_resnet.py",
    "../datasets/cityscapes.py",
    "../schedules/schedule_80k.py",
    "../runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes, align_corners=True),
    auxiliary_head=dict(num_classes=_base_.num_classes, align_corners=True),
    # Windows overlap by a third.
    test_cfg=dict(
        mode="slide",
        crop_size=_base_.crop_size,
        stride=tuple(side * 513 // 769 for side in _base_.crop_size),
    ),
)
