# Settings that all runs share, whatever the network, the data and the schedule.
default_scope = "mmseg"
custom_imports = dict(imports=["danseg"])  # registers danseg's heads, datasets and metrics with mmseg
# PyTorch's defaults hold for float32: on GPUs that have TF32, convolutions round factors to its 10 bits, and
# products of matrices (attention) do not. NVIDIA_TF32_OVERRIDE=0 in the environment makes both exact.
env_cfg = dict(
    cudnn_benchmark=True,  # crops of one size: the fastest convolution is worth the search
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),  # the workers are the parallelism
    dist_cfg=dict(backend="nccl"),
)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="SegLocalVisualizer", vis_backends=vis_backends, name="visualizer")
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
# Averages the probabilities of every scale and flip that the data set's tta_pipeline makes.
tta_model = dict(type="LeanTTAModel")
