# One attention module, here CBAM, with a dilated ResNet-50-v1c on one's own data, from weights of ImageNet:
#   python tools/train.py configs/attention_r50_folder.py --data FOLDER_OF_DATASET_YAML
# For one GPU; the weights are downloaded once. No figure is published for this recipe.
_base_ = "./_base_/recipes/folder.py"

model = dict(decode_head=dict(type="AttentionHead", attention=dict(type="CBAM")))
