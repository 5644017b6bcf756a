"""The table of attention modules: what it reads and what it measures."""

from pathlib import Path

import pytest

import danseg.attention
from danseg.attention import (
    BAM,
    CBAM,
    ChannelAttention,
    CompactGeneralizedNonLocal,
    DualAttention,
    NonLocal2d,
    PointwiseSpatialAttention,
    PositionAttention,
    PyramidSplitDualAttention,
)
from danseg.attention.compact_non_local import KERNELS
from danseg.attention.non_local import MODES
from danseg.attention_table import groups_of_views, label, markdown, modules, row, rows, text
from danseg.registry import MODELS

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "attention.md"
N = 97 * 97


@pytest.fixture(scope="module")
def table():
    return rows()


def test_every_module_has_a_row_and_a_block_one_for_each_pairwise_function(table):
    names = {entry.module.partition("(")[0] for entry in table}
    assert names == set(danseg.attention.__all__)
    assert {entry.module for entry in table if "(" in entry.module} == {
        *(f'NonLocal2d(mode="{mode}")' for mode in MODES),
        *(f'CompactGeneralizedNonLocal(kernel="{kernel}")' for kernel in KERNELS),
    }
    assert len(table) == len(danseg.attention.__all__) + len(MODES) - 1 + len(KERNELS) - 1


def test_types_in_configs_build_the_rows_class(table):
    for entry in table:
        assert MODELS.get(entry.config) is getattr(danseg.attention, entry.module.partition("(")[0])


def test_a_row_of_position_attention():
    entry = row(PositionAttention)
    assert entry.parameters == 512 * (64 + 64 + 512) + 64 + 64 + 512 + 1
    assert entry.operations == 2 * N * 512 * (64 + 64 + 512) + 2 * N * N * (64 + 512)
    assert entry.shows == "position"
    assert entry.equation == "out_j = gamma.scale · Σ_i softmax_i(q_j · k_i) v_i + x_j"
    assert entry.paper == "Dual Attention Network for Scene Segmentation"
    assert (entry.venue, entry.arxiv) == ("CVPR 2019", "1809.02983")


def test_modes_have_equations_and_costs_of_their_own():
    dot_product, gaussian = row(NonLocal2d, mode="dot_product"), row(NonLocal2d, mode="gaussian")
    assert dot_product.equation.endswith(", f = θ_i · φ_j, C = N")
    assert gaussian.equation.endswith(", f = exp(x_i · x_j), C = Σ_j f")
    assert row(CompactGeneralizedNonLocal, kernel="dot").equation.endswith(", k = θ_a φ_b")
    # g and conv_out, and two more projections or none; then θ (φᵀ g), or energies and weighted values.
    assert dot_product.operations == 2 * N * (4 * 512 * 256 + 2 * 256 * 256)
    assert gaussian.operations == 2 * N * (2 * 512 * 256) + 2 * N * N * (512 + 256)


def test_what_modules_show():
    assert row(ChannelAttention).shows == "channels"
    assert row(CBAM).shows == "everywhere, `channels`"
    assert row(BAM).shows == "everywhere, `channels`, `mean gate` (everywhere)"
    assert row(DualAttention).shows == "pam: position, cam: channels"
    assert row(PyramidSplitDualAttention).shows == (
        "branches, `where` (everywhere), `position 3x3` to `position 9x9`, `channels 3x3` to `channels 9x9`"
    )


def test_a_paper_without_arxiv_number_has_no_link():
    entry = row(PointwiseSpatialAttention)
    assert (entry.venue, entry.arxiv) == ("ECCV 2018", None)
    assert markdown([entry]).endswith(
        "| PSANet: Point-wise Spatial Attention Network for Scene Parsing, ECCV 2018 |\n"
    )
    assert text([entry]).endswith(
        "    PSANet: Point-wise Spatial Attention Network for Scene Parsing, ECCV 2018, no arXiv id\n"
    )


def test_both_forms_show_every_row(table):
    lines = markdown(table).splitlines()
    assert len({line.count(" | ") for line in lines}) == 1
    assert len(lines) == 2 + len(table)
    assert len(text(table).splitlines()) == 1 + 3 * len(table)
    for entry in table:
        for form in (markdown(table), text(table)):
            assert entry.module in form and entry.equation in form and entry.paper in form


@pytest.mark.parametrize(
    ("number", "shown"), [(1, "1"), (999, "999"), (1000, "1 k"), (6_166_282_240, "6.17 G")]
)
def test_counts_are_given_to_three_digits(number, shown):
    entry = row(PositionAttention)._replace(operations=number)
    assert f"| {shown} |" in markdown([entry])


def documented(table: str) -> str:
    """What stands in the page between a table's marks."""
    page = DOCUMENT.read_text()
    return page.partition(f"<!-- {table}: begin -->\n\n")[2].partition(f"\n<!-- {table}: end -->")[0]


def test_the_documented_costs_are_those_of_all_that_modules_show():
    wanted = [
        (f"`{label(module, **arguments)}`", called)
        for module, arguments in modules()
        for called, *_ in groups_of_views(module(64, **arguments))
    ]
    rows_of_costs = [
        line.strip("|").split("|") for line in documented("costs").splitlines()[2:] if "|" in line
    ]
    assert [(name.strip(), shows.strip()) for name, shows, *_ in rows_of_costs] == wanted


def test_the_documented_table_is_this_one(table):
    assert documented("modules") == markdown(table), "print it anew: python tools/list_modules.py --markdown"
