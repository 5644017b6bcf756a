"""The result of checking a data set: a report if it passed, otherwise a list of its problems."""

import dataclasses
import textwrap
from collections import Counter

from prettytable import PrettyTable

from danseg.errors import UserError
from danseg.io.words import SHOWN, counted, listed

_WIDTH = 110


@dataclasses.dataclass
class DatasetReport:
    """What a checked split holds.

    Attributes:
        split_name: Name of the split, for messages.
        dataset: Class name of the data set.
        root: Absolute path of its root.
        images: Number of images.
        labels: Number of labels: equal to ``images``, or 0 for a split without labels.
        sizes: Number of images of each (height, width) in pixels.
        classes: Names of the classes, in the order of their train ids.
        pixels: Number of labelled pixels of each class.
        images_with: Number of images that have a pixel of each class.
        ignored: Number of pixels that belong to no class.
        warnings: What looks wrong but does not prevent using the split.
        files: Paths of the images.
        cached: Whether an earlier run decoded the files and they have not changed since.
    """

    split_name: str
    dataset: str
    root: str
    images: int = 0
    labels: int = 0
    sizes: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    pixels: list[int] = dataclasses.field(default_factory=list)
    images_with: list[int] = dataclasses.field(default_factory=list)
    ignored: int = 0
    warnings: list[str] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)
    cached: bool = False

    @property
    def absent(self) -> list[str]:
        """Classes without a single pixel; empty for a split without labels."""
        if not self.labels:
            return []
        return [name for name, count in zip(self.classes, self.pixels, strict=True) if count == 0]

    def class_table(self) -> str:
        """A text table with one row per class: its pixels, their share of all labelled ones, its images."""
        table = PrettyTable(["class", "pixels", "share in %", "images"])
        table.align = "r"
        table.align["class"] = "l"
        labelled = sum(self.pixels)
        for name, pixels, images in zip(self.classes, self.pixels, self.images_with, strict=True):
            share = f"{100 * pixels / labelled:.2f}" if labelled else "-"
            table.add_row([name, f"{pixels:,}", share, f"{images:,} of {self.images:,}"])
        return table.get_string()

    def __str__(self) -> str:
        pairs = f"{counted(self.images, 'image')} {'with' if self.labels else 'without'} labels"
        known = ", files unchanged since their last check" if self.cached else ""
        lines = [f"{self.split_name}: {self.dataset}, {pairs} in {self.root}{known}"]
        common = sorted(self.sizes.items(), key=lambda item: -item[1])
        sizes = listed(f"{h}x{w} ({count})" for (h, w), count in common)
        if len(common) > SHOWN:
            heights, widths = zip(*self.sizes, strict=True)
            sizes += f", heights {min(heights)} to {max(heights)}, widths {min(widths)} to {max(widths)}"
        lines.append(f"  height x width: {sizes}")
        if self.labels:
            labelled = sum(self.pixels)
            total = labelled + self.ignored
            lines.append(f"  pixels: {labelled / total:.1%} of {total:,} belong to a class; of these")
            ranked = sorted(zip(self.pixels, self.classes, strict=True), reverse=True)
            present = [f"{name} {count / labelled:.2%}" for count, name in ranked if count]
            lines += _wrapped(", ".join(present), "    ")
            if self.absent:
                lines += _wrapped("absent: " + ", ".join(self.absent), "  ")
        for warning in self.warnings:
            lines += _wrapped("warning: " + warning, "  ")
        return "\n".join(lines)


def merged(reports: list[DatasetReport]) -> DatasetReport:
    """Add up the reports of the data sets that make up a split."""
    if not reports:
        raise UserError("the config names no data set at all")
    first, *others = reports
    for other in others:
        first.root += f" and {other.root}" if other.root not in first.root.split(" and ") else ""
        first.dataset += f" + {other.dataset}" if other.dataset != first.dataset else ""
        first.images += other.images
        first.labels += other.labels
        first.sizes = dict(Counter(first.sizes) + Counter(other.sizes))
        first.pixels = [a + b for a, b in zip(first.pixels, other.pixels, strict=True)]
        first.images_with = [a + b for a, b in zip(first.images_with, other.images_with, strict=True)]
        first.ignored += other.ignored
        first.warnings += other.warnings
        first.files += other.files
        first.cached = first.cached and other.cached
    return first


def require_classes(report: DatasetReport) -> None:
    """Raise an error if a split's labels name no class, or if training would see one class alone.

    Validation may lack classes: then the report warns.
    """
    where = f"the {report.split_name} split ({report.dataset} in {report.root})"
    present = [name for name, count in zip(report.classes, report.pixels, strict=True) if count]
    if not present:
        raise UserError(
            f"not one pixel of {where} belongs to a class: all have the id that is ignored. Check the label "
            "files, reduce_zero_label and the classes in metainfo"
        )
    if len(present) == 1:
        told = f"every labelled pixel of {where} is {present[0]}, of {len(report.classes)} classes"
        if report.split_name == "train":
            raise UserError(
                f"{told}: there is nothing to learn. Check the label files; if their ids are not 0 to "
                f"{len(report.classes) - 1}, tell them with label_ids of danseg's FolderDataset"
            )
        report.warnings.append(f"{told}; a prediction of {present[0]} everywhere scores 100 %")


class UnusableDataset(UserError):
    """A data set with files that cannot be used; the message names the first ones of each kind of problem.

    Args:
        header: which data set it is, and what is wrong in general.
        problems: the offenders of each kind of problem.
        fixes: how to mend a kind, where that is known.
    """

    def __init__(self, header: str, problems: dict[str, list[str]], fixes: dict[str, str]) -> None:
        self.header, self.problems, self.fixes = header, problems, fixes
        super().__init__(self.listing(SHOWN))

    def listing(self, shown: int) -> str:
        """The message with up to ``shown`` offenders of each kind."""
        lines = [self.header + ":"]
        for kind, offenders in self.problems.items():
            first = f", the first {shown}" if len(offenders) > shown else ""
            lines.append(f"- {kind}: {len(offenders)}{first}")
            lines += [f"    {offender}" for offender in offenders[:shown]]
            if kind in self.fixes:
                lines.append(f"  {self.fixes[kind]}")
        return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
