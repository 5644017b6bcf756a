"""Every module leaves PyTorch in every format, for any size."""

import pytest

from drawn_attention import MODE, VARIANTS, feature_map, make
from exported import QUICK, SLOW, differences

#: The newer exporters take seconds for a network: one variant of each module and mode.
FEW = list({str(MODE(variant)): variant for variant in reversed(VARIANTS)}.values())
CASES = [(QUICK, *variant) for variant in VARIANTS]
CASES += [pytest.param(SLOW, *variant, marks=pytest.mark.slow) for variant in FEW]


@pytest.mark.parametrize(("forms", "name", "arguments"), CASES, ids=str)
def test_files_compute_what_the_module_does_at_any_size(forms, name, arguments, tmp_path):
    # A compact mask is for maps of one size.
    size = dict(traced=(5, 7), sizes=[((5, 7), 1), ((5, 7), 3)]) if arguments.get("compact") else {}
    found = differences(
        make(name, "cpu", **arguments),
        lambda batch, sides: feature_map(name, "cpu", batch=batch, sides=sides),
        forms,
        tmp_path,
        **size,
    )
    assert not {case: one for case, one in found.items() if one > 1e-4}
