"""A model card: Markdown with a head of YAML, as Hugging Face's hub reads them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import yaml
from mmengine.config import Config

from danseg.engine.checkpoints.content_hash import HASH, PUBLISHED
from danseg.engine.config.stored_config import config_from_text
from danseg.engine.config.type_names import type_name
from danseg.io.words import counted

_NAMES = {"mIoU": "mean_iou", "mAcc": "mean_accuracy", "aAcc": "accuracy"}  # of the hub's metrics


def model_card(file: str, meta: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> str:
    """The text of a card.

    Args:
        file: the name of the published file, beside which the card lies.
        meta: what that file says of itself.
        weights: what it holds.
    """
    published, config = meta[PUBLISHED], config_from_text(meta["cfg"], file)
    parts = {
        f"# {published['network']}": _about(config, meta, weights),
        "## Use": [
            "```python",
            "from danseg.apis import Segmenter",
            "",
            f'prediction = Segmenter("{file}")("picture.png")',
            "print(prediction.areas())",
            "```",
            "",
            f"or `danseg predict {file} PICTURES --out FOLDER`. The config is in the file, which "
            f"danseg {published['danseg']} has published.",
        ],
        "## Classes": _classes(meta["dataset_meta"]),
        "## Training": _training(config, published),
        "## Scores": _scores(published),
        "## Limits": [
            "Every pixel gets one of the classes above, whatever it shows. Scores hold for pictures like "
            "those of the data named here; other cameras, places, scales and weather have to be measured. "
            "A mean says little about rare classes, and nothing about what a wrong pixel does in its use.",
        ],
        "## File": [
            f"The SHA-256 of its content, which danseg checks whenever it loads it: `{published[HASH]}`. The "
            "digits in its name begin the SHA-256 of its bytes.",
        ],
    }
    body = "\n\n".join("\n".join([title, "", *lines]) for title, lines in parts.items())
    head = yaml.safe_dump(_head(file, published), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{body}\n"


def _head(file: str, published: Mapping[str, Any]) -> dict[str, Any]:
    sets, scores = published["data"]["sets"], published["scores"] or {}
    measured = [
        {"type": kind, "value": round(scores[name], 2), "name": name}
        for name, kind in _NAMES.items()
        if isinstance(scores.get(name), (int, float))
    ]
    head: dict[str, Any] = {
        "library_name": "danseg",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "attention", "pytorch"],
        "datasets": sets,
        "metrics": ["mean_iou"],
    }
    if measured:
        result = {
            "task": {"type": "image-segmentation"},
            "dataset": {"name": ", ".join(sets) or "unknown", "type": (sets or ["unknown"])[0]},
            "metrics": measured,
        }
        head["model-index"] = [{"name": published["network"], "results": [result]}]
    return head


def _about(config: Config, meta: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> list[str]:
    model = config.model
    backbone = model.get("backbone") or {}
    called = type_name(backbone) + (f"-{backbone['depth']}" if "depth" in backbone else "")
    numbers = sum(value.numel() for value in weights.values() if value.is_floating_point())
    kinds = sorted({str(v.dtype).removeprefix("torch.") for v in weights.values() if v.is_floating_point()})
    heads = model.decode_head if isinstance(model.decode_head, (list, tuple)) else [model.decode_head]
    classes = counted(len(meta["dataset_meta"]["classes"]), "class", "classes")
    return [
        f"Semantic segmentation: {type_name(heads[-1])} on {called}, {classes}, {numbers / 1e6:.2f} million "
        f"weights ({', '.join(kinds)}).",
    ]


def _classes(dataset_meta: Mapping[str, Any]) -> list[str]:
    rows = zip(dataset_meta["classes"], dataset_meta["palette"], strict=True)
    return _table(
        ["id", "class", "red, green, blue"],
        ([index, name, ", ".join(map(str, colour))] for index, (name, colour) in enumerate(rows)),
    )


def _training(config: Config, published: Mapping[str, Any]) -> list[str]:
    training, data = published["training"], published["data"]
    origin = training["converted_from"]
    optimiser = dict((config.get("optim_wrapper") or {}).get("optimizer") or {})
    loader = config.get("train_dataloader") or {}
    backbone = config.model.get("backbone") or {}
    images = counted(data["images"], "image") if data["images"] else None
    names = f"the digest of their names is {data['names']}" if data["names"] else None
    rows = {
        "data": "; ".join(filter(None, [", ".join(data["sets"]), images, names])),
        "started from": config.model.get("pretrained") or (backbone.get("init_cfg") or {}).get("checkpoint"),
        "converted from": origin and f"{origin['file']} ({origin['layout']}), SHA-256 {origin['sha256']}",
        "iterations": training["iterations"],
        "epochs": training["epochs"] or None,
        "batch": loader.get("batch_size") and f"{loader['batch_size']} a process",
        "crop": config.get("crop_size") and " x ".join(map(str, config.crop_size)),
        "optimiser": optimiser
        and ", ".join([type_name(optimiser), *(f"{k}={v}" for k, v in optimiser.items() if k != "type")]),
        "schedule": ", ".join(type_name(one) for one in _list(config.get("param_scheduler"))),
        "weights": "averaged over the training" if training["averaged"] else None,
        "seed": training["seed"],
    }
    return _table(["", ""], ([key, value] for key, value in rows.items() if value not in (None, "", {})))


def _scores(published: Mapping[str, Any]) -> list[str]:
    scores = published["scores"]
    if not scores:
        return ["Not measured."]
    means = {key: value for key, value in scores.items() if isinstance(value, float)}
    classes = scores.get("classes") or {}
    lines = [
        f"In percent, of the {scores['measured']} set"
        + (f", with test-time augmentation ({scores.get('views')})" if scores.get("tta") else "")
        + ".",
        "",
        *_table(["score", "%"], ([key, f"{value:.2f}"] for key, value in means.items())),
    ]
    if classes:
        rows = ([name, *(_percent(one.get(key)) for key in ("IoU", "Acc"))] for name, one in classes.items())
        lines += ["", *_table(["class", "IoU", "Acc"], rows)]
    return lines


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def _table(head: list[str], rows: Iterator[list[Any]]) -> list[str]:
    def line(cells: list[Any]) -> str:
        return f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in cells)} |"

    return [line(head), line(["---"] * len(head)), *(line(row) for row in rows)]
