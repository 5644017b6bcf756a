# ISANet with a dilated ResNet-18 of half width on a data set of one's own, trained from scratch:
#   python tools/train.py configs/isanet_r18_folder.py --data FOLDER_OF_DATASET_YAML
# Small enough for a computer without a GPU. No figure is published for this recipe.
_base_ = "./_base_/recipes/folder_r18.py"

model = dict(decode_head=dict(type="ISANetHead", isa_channels=32, down_factor=(8, 8)))
