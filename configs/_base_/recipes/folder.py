# Networks on a data set of one's own, on one device: a pretrained ResNet-50-v1c, tested on whole images, or
# by windows where images are large. What follows from the set is in ../datasets/folder.py.
_base_ = [
    "../models/dilated_resnet.py",
    "../datasets/folder.py",
    "../schedules/folder.py",
    "../runtime.py",
]

norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
    test_cfg=(
        dict(mode="whole")
        if _base_.test_mode == "whole"
        # Windows overlap by a third.
        else dict(
            mode=_base_.test_mode,
            crop_size=_base_.crop_size,
            stride=tuple(max(1, side * 2 // 3) for side in _base_.crop_size),
        )
    ),
)
auto_scale_lr = dict(base_batch_size=_base_.batch_size)
