# CCNet with a dilated ResNet-18 of half width on a data set of one's own, trained from scratch:
#   python tools/train.py configs/ccnet_r18_folder.py --data FOLDER_OF_DATASET_YAML
# Small enough for a computer without a GPU. No figure is published for this recipe.
_base_ = "./_base_/recipes/folder_r18.py"

model = dict(decode_head=dict(type="CCNetHead", recurrence=2))
