"""Run evaluations on one gloo rank; test_metric.py starts this file as a separate process.

    python metric_rank.py RANK WORLD_SIZE FOLDER

evaluates the same images once per entry of RUNS, writes what the evaluator returned to
FOLDER/NAME/rank_RANK.json and the predictions to FOLDER/NAME/out/deep.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator

import danseg  # noqa: F401  (registers the metric)
from danseg.engine.distributed import leave_group

CLASSES = ("a", "b", "c", "d")

# name -> batch size, how results are collected
RUNS = {"through_the_group": (1, "gpu"), "through_files": (2, "cpu")}


def samples(images: int = 5) -> list[dict]:
    """Images that differ in size and accuracy: counting one twice or not at all changes the scores."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(images):
        label = torch.randint(0, len(CLASSES), (1, 20 + 31 * i, 40), generator=generator)
        wrong = torch.randint(0, len(CLASSES), label.shape, generator=generator)
        prediction = torch.where(torch.rand(label.shape, generator=generator) < i / images, wrong, label)
        label[:, :3] = 255
        made.append(
            dict(
                pred_sem_seg=dict(data=prediction),
                gt_sem_seg=dict(data=label),
                img_path=f"images/{i}.png",
                seg_map_path=f"labels/{i}.png",
            )
        )
    return made


def evaluate(folder: Path, batch_size: int, collect_device: str) -> dict:
    """The evaluator's values, the number of images this rank saw, and rank 0's confusion matrix."""
    evaluator = Evaluator(
        dict(
            type="mmseg.ExactIoUMetric",
            iou_metrics=["mIoU", "mFscore"],
            output_dir=str(folder / "out" / "deep"),
            collect_device=collect_device,
            collect_dir=str(folder / "parts") if collect_device == "cpu" else None,
        )
    )
    evaluator.dataset_meta = dict(classes=CLASSES)
    data = samples()
    order = list(DefaultSampler(data, shuffle=False))  # repeats images until every rank has the same number
    for start in range(0, len(order), batch_size):
        evaluator.process([data[i] for i in order[start : start + batch_size]])
    values = evaluator.evaluate(len(data))
    scores = evaluator.metrics[0].scores
    confusion = None if scores is None else scores.confusion.tolist()
    return dict(values=values, processed=len(order), confusion=confusion)


def main() -> None:
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    for name, (batch_size, collect_device) in RUNS.items():
        result = evaluate(folder / name, batch_size, collect_device)
        (folder / name / f"rank_{rank}.json").write_text(json.dumps(result))
    leave_group()


if __name__ == "__main__":
    main()
