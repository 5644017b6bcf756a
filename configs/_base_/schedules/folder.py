# SGD with a warm-up and the poly rate, for a data set of one's own on one device. --data gives max_iters,
# from which warm-up, decay, validation and checkpoints are computed.
_base_ = "./schedule_40k.py"

warmup_iters = max(2, _base_.max_iters // 20)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=warmup_iters, by_epoch=False),
    dict(_base_.param_scheduler[0], begin=min(warmup_iters, _base_.max_iters - 1)),
]
default_hooks = dict(logger=dict(interval=20))
