"""Scores are those of the checkpoint itself; what tools/publish.py refuses is in its own test."""

import json

from danseg.convert.measured_scores import measured_scores


def test_scores_of_the_validation_at_its_iteration_are_found(tmp_path):
    path = tmp_path / "best_mIoU_iter_40.pth"
    content = {"meta": {"iter": 40}}
    assert measured_scores(path, content, None) is None
    record = [dict(iteration=20, mIoU=1.0), dict(iteration=40, mIoU=2.0, aAcc=3.0)]
    (tmp_path / "validations.json").write_text(json.dumps(record))
    assert measured_scores(path, content, None) == dict(measured="validation", mIoU=2.0, aAcc=3.0)
    for other in ({"meta": {"iter": 30}}, {"meta": {}}, {}):
        assert measured_scores(path, other, None) is None


def test_a_test_goes_before_it(tmp_path):
    (tmp_path / "validations.json").write_text(json.dumps([dict(iteration=4, mIoU=2.0)]))
    report = dict(config="/c.py", checkpoint="/x/a.pth", mIoU=5.0, sets={"/data/secret": {}}, tta=False)
    (tmp_path / "metrics.json").write_text(json.dumps(report))
    found = measured_scores(tmp_path / "a.pth", {"meta": {"iter": 4}}, tmp_path / "metrics.json")
    assert found == dict(measured="test", mIoU=5.0, tta=False)
