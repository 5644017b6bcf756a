_base_ = "./schedule_40k.py"

max_iters = 80000
val_interval = max(1, max_iters // 10)
param_scheduler = [dict(_base_.param_scheduler[0], end=max_iters)]
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
default_hooks = dict(checkpoint=dict(interval=val_interval))
