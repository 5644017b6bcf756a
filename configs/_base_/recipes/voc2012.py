# Networks on Pascal VOC 2012, crops of 512x512: 40k iterations, tested on whole images.
_base_ = [
    "../models/dilated_resnet.py",
    "../datasets/voc2012.py",
    "../schedules/schedule_40k.py",
    "../runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
)
auto_scale_lr = dict(base_batch_size=16)  # 4 GPUs x 4 images
