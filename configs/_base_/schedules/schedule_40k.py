# SGD with the poly rate, 40k iterations of 8 images. The longer schedules differ only in length.
max_iters = 40000
val_interval = max(1, max_iters // 10)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=5e-4),
    clip_grad=None,
)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=max_iters, by_epoch=False)]
# lr is chosen for a total batch of 4 GPUs x 2 images. With --auto-scale-lr, it follows the actual total.
auto_scale_lr = dict(enable=False, base_batch_size=8)

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=val_interval)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="SafeCheckpointHook",
        by_epoch=False,
        interval=val_interval,
        save_best="mIoU",
        rule="greater",
        max_keep_ckpts=2,  # one to fall back on while the other is being written
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
