"""Arguments that all heads in the tests share."""

COMMON = dict(in_channels=24, channels=16, num_classes=5, norm_cfg=dict(type="BN"))
