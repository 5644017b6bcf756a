"""docs/reliability.md has the figures of the stored campaign, and the stock stack's word on every fault."""

import json

from carrying_out import all_faults
from reliability_table import BEGIN, END, PAGE, STOCK, newest, rendered, with_figures

ROW = dict(fault="SIGTERM", tries=50, survived=49, lost=2, wrong=["7: hang", "7: status 1"], kinds={})
RESULT = dict(about=dict(torch="2", mmseg="1", device_name="a CPU", seed=0), rows=[ROW])


def test_the_page_is_rendered_from_the_stored_result():
    page, path = PAGE.read_text(encoding="utf-8"), newest()
    assert with_figures(page, json.loads(path.read_text(encoding="utf-8")) if path else None) == page


def test_every_fault_has_its_row():
    mounted = {"full disk in training", "full disk in other tools"}  # only root can try these
    assert {fault.name for fault in all_faults()} | mounted == STOCK.keys()


def test_figures_and_what_did_not_survive_are_shown():
    page = with_figures(f"before\n{BEGIN}earlier figures\n{END}after\n", RESULT)
    assert (
        page.startswith(f"before\n{BEGIN}| fault")
        and page.endswith(f"{END}after\n")
        and "earlier figures" not in page
    )
    assert "| SIGTERM | nothing saved | 50 | 49 | 2 | 1 | 0 |" in page
    assert "- SIGTERM, 7: hang\n" in page
    assert "TO BE MEASURED" in rendered(None) and "TO BE MEASURED" not in page
