import numpy as np
import pytest

from danseg.visualization.attention_effect import AttentionEffect


def effect(scale: float | None, changed: float, largest: float) -> AttentionEffect:
    return AttentionEffect(
        "decode_head.pam",
        scale,
        np.zeros((2, 3), np.int64),
        changed,
        largest,
        [],
        np.zeros((0, 4), np.float32),
        np.zeros((0, 4), np.float32),
    )


@pytest.mark.parametrize(
    ("scale", "changed", "largest", "said"),
    [
        (0.0, 0.0, 0.0, "decode_head.pam (γ = 0): its attention does nothing, whatever its maps show"),
        (0.8123, 0.0, 0.0, "decode_head.pam (γ = 0.812): its attention does nothing here: all logits are"),
        (
            None,
            0.0,
            0.0123,
            "decode_head.pam: without its attention no pixel has another label; a logit changes by 0.012",
        ),
        (None, 0.0324, 1.5, "decode_head.pam: without its attention 3.2 % of the pixels have another label"),
        (0.5, 0.0004, 1.5, "decode_head.pam (γ = 0.5): without its attention less than 0.1 % of the pixels"),
        (0.5, 1.0, 9.0, "decode_head.pam (γ = 0.5): without its attention 100.0 % of the pixels"),
        (-0.31, 0.5, 9.0, "decode_head.pam (γ = -0.31, negative: what it gathers is subtracted): without"),
    ],
)
def test_one_line_says_what_the_attention_does(scale, changed, largest, said):
    summary = effect(scale, changed, largest).summary()
    assert summary.startswith(said) and "\n" not in summary
