# Networks on Cityscapes, crops of 512x1024: 80k iterations, tested on whole frames.
_base_ = [
    "../models/dilated_resnet.py",
    "../datasets/cityscapes_512x1024.py",
    "../schedules/schedule_80k.py",
    "../runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
)
