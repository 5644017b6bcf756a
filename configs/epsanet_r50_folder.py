# Dilated EPSANet-50 with EPSANetHead on a data set of one's own:
#   python tools/train.py configs/epsanet_r50_folder.py --data FOLDER_OF_DATASET_YAML
# Weights of its backbone are not published, so that it starts from scratch. No figure is published for it.
_base_ = "./_base_/recipes/folder.py"

recompute = ["backbone.layer1", "backbone.layer2"]  # its stem is one convolution
model = dict(
    pretrained=None,
    backbone=dict(type="VariantResNet", conv2="pyramid_split"),
    decode_head=dict(type="EPSANetHead", reduction=16),
)
