"""docs/explore_api.md: every example runs, and what it says of results is so."""

import re
from pathlib import Path

import cv2
import numpy as np

from danseg import apis
from danseg.apis.attention_statistics import RULE
from danseg.apis.class_activation import METHODS
from danseg.attention.parts.views import KINDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "explore_api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_every_example_runs(camvid, make_config, make_checkpoint, monkeypatch):
    config = make_config(camvid)
    config.dump(camvid / "config.py")
    make_checkpoint(config, camvid / "weights.pth")
    monkeypatch.chdir(camvid)
    picture = cv2.resize(cv2.imread(str(camvid / "val" / "a.png")), (720, 600))
    cv2.imwrite("street.png", picture)
    labels = apis.predict(apis.load_model("config.py", "weights.pth"), "street.png")
    [a, b, *_] = np.unique(labels)
    values: dict = {}
    assert len(EXAMPLES) == 2
    for example in EXAMPLES:
        text = example.replace("CONFIG", "config.py").replace("CHECKPOINT", "weights.pth")
        # The class that the page asks about is one of the picture.
        named = str(values["exploration"].classes[a]) if "exploration" in values else ""
        exec(compile(text.replace('"car"', repr(named)), "docs/explore_api.md", "exec"), values)
    assert values["maps"].over_image().shape == (2, 600, 720)
    assert values["effect"].without.shape == (1, 11)
    assert re.match(r"decode_head\.pam \(γ = 0\.8\): without its attention", values["effect"].summary())


def test_the_page_names_every_kind_method_and_verdict():
    assert all(f"`{name}`" in PAGE for name in (*KINDS, *METHODS))
    verdicts = re.findall(r"\*\*(dead|idle|flat|the same from everywhere|constant|alive)\*\*", PAGE.lower())
    assert set(verdicts) == {"dead", "idle", "flat", "the same from everywhere", "constant", "alive"}
    assert all(verdict in RULE for verdict in verdicts)
