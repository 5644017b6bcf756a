# Minutes on a laptop's processor: iterations of 4 images. max_iters is the number to change.
_base_ = "./camvid.py"

max_iters = 900
val_interval = max(1, max_iters // 3)
warmup_iters = max(2, max_iters // 20)

param_scheduler = [
    dict(_base_.param_scheduler[0], end=warmup_iters),
    dict(_base_.param_scheduler[1], begin=min(warmup_iters, max_iters - 1), end=max_iters),
]
# In so few iterations AdamW reaches a better result than SGD.
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=3e-3, weight_decay=1e-4))
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=val_interval))
