# Networks on ADE20K, crops of 512x512: 160k iterations, tested on whole images.
_base_ = [
    "../models/dilated_resnet.py",
    "../datasets/ade20k.py",
    "../schedules/schedule_160k.py",
    "../runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
)
