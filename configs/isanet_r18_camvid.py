# danet_r18_camvid.py with ISANetHead in place of DANet's head and nothing else changed, trained from
# scratch in total batches of 8. No figure is published for this recipe.
_base_ = "./_base_/recipes/camvid.py"

model = dict(decode_head=dict(type="ISANetHead", isa_channels=64, down_factor=(8, 8)))
