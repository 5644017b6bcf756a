"""What a figure's page says: its texts, and those of them that overlap."""

import numpy as np
from matplotlib.figure import Figure

from danseg.visualization import AttentionMaps, Placement
from danseg.visualization.attention_effect import AttentionEffect

CLASSES = ("road", "sky", "car", "rider")
PALETTE = [(128, 64, 128), (70, 130, 180), (0, 0, 142), (255, 0, 0)]


def frame(height: int = 60, width: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, its truth and a prediction."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    truth = np.zeros((height, width), dtype=np.int64)
    truth[: height // 2] = 1
    prediction = truth.copy()
    prediction[:, : width // 4] = 2
    truth[0] = 255
    return image, truth, prediction


def maps(count: int, height: int = 60, width: int = 120, *, positions: bool = True, **about) -> AttentionMaps:
    """Maps of 6 x 12 cells that sum to 1."""
    rows = np.random.default_rng(1).dirichlet(np.ones(6 * 12), count).reshape(count, 6, 12)
    places = [(10 * i + 5, 7 * i + 3) for i in range(count)] if positions else []
    placement = Placement((height, width), (height, width), (height, width))
    about = dict(dict(scale=0.25), **about)
    return AttentionMaps("decode_head.pam", places, about.pop("rows", rows), placement, **about)


def effect(labels: np.ndarray, count: int = 2, channels: int = 4, changed: bool = True) -> AttentionEffect:
    """What is drawn of an effect: rows 0 to 5 are riders without the attention."""
    without = labels.copy()
    if changed:
        without[:6] = 3
    rng = np.random.default_rng(0)
    logits, others = rng.normal(size=(2, count, channels)) * 3
    return AttentionEffect(
        module="decode_head.pam",
        scale=-0.2,
        labels=without,
        changed=float((without != labels).mean()),
        largest_change=1.5,
        positions=[(7 * k, 5 * k) for k in range(count)],
        with_attention=logits,
        without=others,
    )


def texts(figure: Figure) -> list[str]:
    """Headings, titles and legends."""
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found.append(axes.get_title())
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return found


def overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap; none of them leaves the page."""
    figure.canvas.draw()
    artists = [*figure.texts, *(axes.title for axes in figure.axes)]
    for axes in figure.axes:
        artists += axes.get_legend().get_texts() if axes.get_legend() else []
        artists += axes.texts
        if axes.axison:
            artists += [axes.xaxis.label, *axes.get_yticklabels()]
            low, high = sorted(axes.get_xlim())
            ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            artists += [label for place, label in ticks if low <= place <= high]
    artists = [artist for artist in artists if artist.get_text()]
    boxes = [artist.get_window_extent() for artist in artists]
    bounds = figure.bbox
    outside = [
        artist.get_text()
        for artist, box in zip(artists, boxes, strict=True)
        if box.x0 < 0 or box.y0 < 0 or box.x1 > bounds.x1 or box.y1 > bounds.y1
    ]
    assert not outside, f"leave the page: {outside}"
    return [
        (artists[i].get_text(), artists[j].get_text())
        for i in range(len(boxes))
        for j in range(i)
        if boxes[i].overlaps(boxes[j])
    ]
