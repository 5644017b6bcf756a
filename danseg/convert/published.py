"""A trained network as a file for others: weights, config, what it was trained for and measured at.

What only a training needs stays behind, and so does what tells of the machine that it ran on. Where weights
were averaged (``EMAHook``), the averaged ones are published: the network that was validated, which
:func:`danseg.engine.checkpoints.checkpoint.load_weights` loads too.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmseg.models import BaseSegmentor
from safetensors.torch import save as safetensors_bytes

from danseg.convert.measured_scores import measured_scores
from danseg.convert.model_card import model_card
from danseg.datasets.wrappers import inner_configs
from danseg.engine.checkpoints.checkpoint import NOTES, read_checkpoint, weights_of
from danseg.engine.checkpoints.content_hash import HASH, PUBLISHED, content_hash
from danseg.engine.config.machine_paths import without_machine_paths
from danseg.engine.config.stored_config import config_from_text, config_to_text
from danseg.engine.config.type_names import type_name
from danseg.engine.training_settings import trained_images
from danseg.errors import UserError
from danseg.io.files import files_together, make_folder
from danseg.known_datasets import KNOWN_DATASETS
from danseg.model_files import CHECKPOINTS
from danseg.version import __version__

_VERSION = 1  # of what PUBLISHED holds


class Published(NamedTuple):
    """The files of a published network: weights and notes on them in one, the notes as JSON, the card."""

    weights: Path
    notes: Path
    card: Path


def publish(
    model: BaseSegmentor,
    config: Config,
    checkpoint: str | Path,
    out: str | Path,
    metrics: str | Path | None = None,
) -> Published:
    """Write a checkpoint as a file that needs no other, with a model card beside it.

    The file's name gets the first 8 digits of the SHA-256 of its bytes, as PyTorch's hub checks them:
    ``danet_r18_camvid-1b2c3d4e.safetensors``. Either all files are written, or none.

    Args:
        model: from :func:`danseg.apis.load_model`, with this config and checkpoint, which therefore fit.
        config: the whole config, also of its training.
        checkpoint: what training wrote, or another file of weights.
        out: the file to write, .safetensors or .pth.
        metrics: scores that ``tools/test.py`` wrote of this checkpoint. Default: those of the validation at
            its iteration, if ``validations.json`` beside it has them.

    Raises:
        UserError: a file cannot be read or written, exists already or has another suffix, the scores are not
            of this checkpoint, or the config cannot be stored.
    """
    out = Path(out)
    if out.suffix not in CHECKPOINTS:
        raise UserError(f"--out {out}: a network is published as {' or '.join(CHECKPOINTS)}")
    trained = read_checkpoint(checkpoint)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in weights_of(trained).items()}
    meta: dict[str, Any] = {
        "cfg": config_to_text(config),
        "dataset_meta": {
            "classes": list(model.dataset_meta["classes"]),
            "palette": [list(colour) for colour in model.dataset_meta["palette"]],
        },
        PUBLISHED: {
            "form": _VERSION,
            "danseg": __version__,
            "network": _network_name(config, trained, out),
            "training": _training(trained),
            "data": _data(config, trained),
            "scores": measured_scores(checkpoint, trained, metrics),
        },
    }
    meta[PUBLISHED][HASH] = content_hash(weights, meta)
    config_from_text(meta["cfg"], out)  # or nobody could load it
    data = _safetensors(weights, meta) if out.suffix == ".safetensors" else _torch(weights, meta)
    make_folder(out.parent, fix="name another place with --out")
    stem = out.with_name(f"{out.stem}-{hashlib.sha256(data).hexdigest()[:8]}")
    files = Published(*(stem.with_name(f"{stem.name}{end}") for end in (out.suffix, ".json", ".md")))
    for path in files:
        if path.exists():
            raise UserError(f"{path} exists already; delete it, or name another file with --out")
    texts = (json.dumps(meta, indent=2) + "\n", model_card(files.weights.name, meta, weights))
    with files_together(files.weights) as part:
        for path, content in zip(files, (data, *(text.encode() for text in texts)), strict=True):
            part.with_name(path.name).write_bytes(content)
    return files


def _torch(weights: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": dict(weights), "meta": meta}, buffer)
    return buffer.getvalue()


def _safetensors(weights: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> bytes:
    return safetensors_bytes(dict(weights), {"format": "pt", NOTES: json.dumps(meta)})


def _training(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its training."""
    meta = content.get("meta") or {}
    found = {
        key: meta.get(old) for key, old in (("iterations", "iter"), ("epochs", "epoch"), ("seed", "seed"))
    }
    averaged = content.get("ema_state_dict") is not None
    return {**found, "averaged": averaged, "converted_from": meta.get("converted_from")}


def _data(config: Config, content: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a training's images: the sets, how many images, a digest of their names."""
    loader = config.get("train_dataloader") or config.get("test_dataloader") or {}
    sets = [_set_name(one) for one in inner_configs(loader["dataset"])] if loader.get("dataset") else []
    images = trained_images(content)
    return {
        "sets": list(dict.fromkeys(sets)),
        "images": images and images[0],
        "names": images and images[1],
    }


def _set_name(dataset: Mapping[str, Any]) -> str:
    """What a data set is called: the name of one that danseg knows, or else its folder's."""
    kind, root = type_name(dataset), str(dataset.get("data_root") or "").rstrip("/")
    alike = [one for one in KNOWN_DATASETS.values() if one.type == kind]
    found = next((one for one in alike if one.root == root), alike[0] if alike else None)
    return found.name if found else Path(without_machine_paths({"data_root": root})["data_root"]).name or kind


def _network_name(config: Config, content: Mapping[str, Any], out: Path) -> str:
    """The name of the config, which a checkpoint of a training keeps in front of the time of its start."""
    meta = content.get("meta") or {}
    if str(config.filename).endswith(".py"):
        return Path(config.filename).stem
    experiment = re.sub(r"_?\d{8}_\d{6}$", "", str(meta.get("experiment_name") or ""))
    return (meta.get(PUBLISHED) or {}).get("network") or experiment or out.stem
