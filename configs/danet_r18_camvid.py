# DANet with a dilated ResNet-18 on CamVid at half resolution, trained from scratch in total batches of 8.
# No figure is published for this recipe; fcn_r18_camvid.py is the same network without attention.
_base_ = "./_base_/recipes/camvid.py"

model = dict(decode_head=dict(type="DANetHead", pam_channels=16, with_pam=True, with_cam=True))
