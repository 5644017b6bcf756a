"""Where the ImageNet weights lie that torchvision and timm name, for backbones which have ResNet's layers.

The addresses are those of torchvision's ``ResNet*_Weights`` and of timm's ``models/resnet.py``. Each file's
name ends in the first digits of its SHA-256. Weights that may not be used commercially are left out. mmengine
asks torchvision for its addresses; here neither package is needed.
"""

import json
from importlib.resources import files

_TORCH = "https://download.pytorch.org/models"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download"
_HOMES = {
    "torch": _TORCH,
    "timm": f"{_TIMM}/v0.1-weights",
    "rsb": f"{_TIMM}/v0.1-rsb-weights",
    "tpu": f"{_TIMM}/v0.1-tpu-weights",
    "gluon": "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1",
}

# torchvision's second training of a network, which its name alone does not mean.
_SECOND = {
    "resnet50": "resnet50-11ad3fa6",
    "resnet101": "resnet101-cd907fc2",
    "resnet152": "resnet152-f82ba261",
    "resnext50_32x4d": "resnext50_32x4d-1a0047aa",
    "resnext101_32x8d": "resnext101_32x8d-110c445d",
}
_RESNETS = ("resnet18", "resnet34", *_SECOND)

# By architecture and training. The first of an architecture is what its name alone means, as in timm.
_OF_TIMM = {
    "resnet18.a1_in1k": "rsb/resnet18_a1_0-d63eafa0",
    "resnet18.a2_in1k": "rsb/resnet18_a2_0-b61bd467",
    "resnet18.a3_in1k": "rsb/resnet18_a3_0-40c531c8",
    "resnet18.gluon_in1k": "gluon/gluon_resnet18_v1b-0757602b",
    "resnet18d.ra2_in1k": "timm/resnet18d_ra2-48a79e06",
    "resnet34.a1_in1k": "rsb/resnet34_a1_0-46f8f793",
    "resnet34.a2_in1k": "rsb/resnet34_a2_0-82d47d71",
    "resnet34.a3_in1k": "rsb/resnet34_a3_0-a20cabb6",
    "resnet34.bt_in1k": "timm/resnet34-43635321",
    "resnet34.gluon_in1k": "gluon/gluon_resnet34_v1b-c6d82d59",
    "resnet34d.ra2_in1k": "timm/resnet34d_ra2-f8dcfcaf",
    "resnet50.a1_in1k": "rsb/resnet50_a1_0-14fe96d1",
    "resnet50.a1h_in1k": "rsb/resnet50_a1h2_176-001a1197",
    "resnet50.a2_in1k": "rsb/resnet50_a2_0-a2746f79",
    "resnet50.a3_in1k": "rsb/resnet50_a3_0-59cae1ef",
    "resnet50.b1k_in1k": "rsb/resnet50_b1k-532a802a",
    "resnet50.b2k_in1k": "rsb/resnet50_b2k-1ba180c1",
    "resnet50.c1_in1k": "rsb/resnet50_c1-5ba5e060",
    "resnet50.c2_in1k": "rsb/resnet50_c2-d01e05b2",
    "resnet50.d_in1k": "rsb/resnet50_d-f39db8af",
    "resnet50.ram_in1k": "timm/resnet50_ram-a26f946b",
    "resnet50.am_in1k": "timm/resnet50_am-6c502b37",
    "resnet50.ra_in1k": "timm/resnet50_ra-85ebb6e5",
    "resnet50.bt_in1k": "timm/rw_resnet50-86acaeed",
    "resnet50.gluon_in1k": "gluon/gluon_resnet50_v1b-0ebe02e2",
    "resnet50c.gluon_in1k": "gluon/gluon_resnet50_v1c-48092f55",
    "resnet50d.ra2_in1k": "timm/resnet50d_ra2-464e36ba",
    "resnet50d.a1_in1k": "rsb/resnet50d_a1_0-e20cff14",
    "resnet50d.a2_in1k": "rsb/resnet50d_a2_0-a3adc64d",
    "resnet50d.a3_in1k": "rsb/resnet50d_a3_0-403fdfad",
    "resnet50d.gluon_in1k": "gluon/gluon_resnet50_v1d-818a1b1b",
    "resnet101.a1h_in1k": "rsb/resnet101_a1h-36d3f2aa",
    "resnet101.a1_in1k": "rsb/resnet101_a1_0-cdcb52a9",
    "resnet101.a2_in1k": "rsb/resnet101_a2_0-6edb36c7",
    "resnet101.a3_in1k": "rsb/resnet101_a3_0-1db14157",
    "resnet101.gluon_in1k": "gluon/gluon_resnet101_v1b-3b017079",
    "resnet101c.gluon_in1k": "gluon/gluon_resnet101_v1c-1f26822a",
    "resnet101d.ra2_in1k": "timm/resnet101d_ra2-2803ffab",
    "resnet101d.gluon_in1k": "gluon/gluon_resnet101_v1d-0f9c8644",
    "resnet152.a1h_in1k": "rsb/resnet152_a1h-dc400468",
    "resnet152.a1_in1k": "rsb/resnet152_a1_0-2eee8a7a",
    "resnet152.a2_in1k": "rsb/resnet152_a2_0-b4c6978f",
    "resnet152.a3_in1k": "rsb/resnet152_a3_0-134d4688",
    "resnet152.gluon_in1k": "gluon/gluon_resnet152_v1b-c1edb0dd",
    "resnet152c.gluon_in1k": "gluon/gluon_resnet152_v1c-a3bb0b98",
    "resnet152d.ra2_in1k": "timm/resnet152d_ra2-5cac0439",
    "resnet152d.gluon_in1k": "gluon/gluon_resnet152_v1d-bd354e12",
    "resnext50_32x4d.a1h_in1k": "rsb/resnext50_32x4d_a1h-0146ab0a",
    "resnext50_32x4d.a1_in1k": "rsb/resnext50_32x4d_a1_0-b5a91a1d",
    "resnext50_32x4d.a2_in1k": "rsb/resnext50_32x4d_a2_0-efc76add",
    "resnext50_32x4d.a3_in1k": "rsb/resnext50_32x4d_a3_0-3e450271",
    "resnext50_32x4d.ra_in1k": "timm/resnext50_32x4d_ra-d733960d",
    "resnext50_32x4d.gluon_in1k": "gluon/gluon_resnext50_32x4d-e6a097c1",
    "resnext101_32x4d.gluon_in1k": "gluon/gluon_resnext101_32x4d-b253c8c4",
    "resnext101_64x4d.c1_in1k": "tpu/resnext101_64x4d_c-0d0e0cc0",
    "resnext101_64x4d.gluon_in1k": "gluon/gluon_resnext101_64x4d-f9a8e184",
}


def torchvision_models() -> dict[str, str]:
    """The address of each model of torchvision: "resnet50", "resnet50.imagenet1k_v2" and so on."""
    listed = files("mmengine") / "hub" / "torchvision_0.12.json"
    found = json.loads(listed.read_text(encoding="utf-8"))
    known: dict[str, str] = {name: address for name, address in found.items() if address}
    for name in _RESNETS:
        known[f"{name}.imagenet1k_v1"] = known[f"{name}.default"] = known[name]
        if name in _SECOND:
            known[f"{name}.imagenet1k_v2"] = known[f"{name}.default"] = f"{_TORCH}/{_SECOND[name]}.pth"
    return known


def timm_models() -> dict[str, str]:
    """The address of each model of timm: "resnet50d.ra2_in1k", or "resnet50d"."""
    known: dict[str, str] = {}
    of_torchvision = torchvision_models()
    trained = {name: _address(place) for name, place in _OF_TIMM.items()}
    for name in _RESNETS:
        trained[f"{name}.tv_in1k"] = of_torchvision[name]
        if name in _SECOND:
            trained[f"{name}.tv2_in1k"] = of_torchvision[f"{name}.imagenet1k_v2"]
    for name, address in trained.items():
        known.setdefault(name.partition(".")[0], address)
        known[name] = address
    return known


def _address(place: str) -> str:
    home, _, name = place.partition("/")
    return f"{_HOMES[home]}/{name}.pth"
