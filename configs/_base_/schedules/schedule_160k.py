# The schedule of ADE20K: 160k iterations of 16 images.
_base_ = "./schedule_40k.py"

max_iters = 160000
val_interval = max(1, max_iters // 10)
param_scheduler = [dict(_base_.param_scheduler[0], end=max_iters)]
auto_scale_lr = dict(base_batch_size=16)  # 4 GPUs x 4 images
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
default_hooks = dict(checkpoint=dict(interval=val_interval))
