# A short schedule for a network trained from scratch on 367 frames: iterations of 8 images on one device.
# Change only max_iters: warm-up, decay, validation and checkpoints are computed from it.
_base_ = "./schedule_40k.py"

max_iters = 1200
val_interval = max(1, max_iters // 10)
warmup_iters = max(2, max_iters // 20)  # without pretrained weights, the first steps need a lower rate

param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=warmup_iters, by_epoch=False),
    dict(_base_.param_scheduler[0], begin=min(warmup_iters, max_iters - 1), end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=val_interval))
