# DANet with a dilated ResNet-18 of half width on the rendered street scenes, trained from scratch in total
# batches of 4: small enough for a laptop's processor. No figure is published for this recipe.
_base_ = "./_base_/recipes/demo.py"

model = dict(decode_head=dict(type="DANetHead", pam_channels=8, with_pam=True, with_cam=True))
