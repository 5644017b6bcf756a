import getpass
from pathlib import Path

import pytest

from danseg.engine.config import machine_paths
from danseg.engine.config.machine_paths import without_machine_paths


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("data_root", "data/cityscapes/", "data/cityscapes/"),
        ("data_root", "/home/ann/sets/street/", "data/street"),
        ("data_root", "~/sets/street", "data/street"),
        ("data_root", "../../sets/street", "data/street"),
        ("data_root", "C:\\Users\\ann\\street", "data/street"),
        ("data_root", "sets/ann/street", "data/street"),
        ("ann_file", "file:///home/ann/a.txt", "a.txt"),
        ("pretrained", "open-mmlab://resnet50_v1c", "open-mmlab://resnet50_v1c"),
        ("pretrained", "https://host/../a.pth", "https://host/../a.pth"),
        ("pretrained", "\\\\server\\share\\a.pth", "a.pth"),
        ("img_path", "leftImg8bit/val", "leftImg8bit/val"),
        ("classes", "ann", "ann"),
        ("type", "EncoderDecoder", "EncoderDecoder"),
        ("prepare_command", f"tool {Path.home()}/sets/a.txt", "tool sets/a.txt"),
    ],
)
def test_paths_mean_the_same_on_any_machine(key, text, said, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    assert without_machine_paths({key: text}) == {key: said}
    assert without_machine_paths([(text, 1)], key) == [(said, 1)]


def test_what_lies_below_a_data_root_is_said_from_there():
    dataset = dict(data_root="/sets/street", data_prefix=dict(img_path="/sets/street/a/b", other="/else/c"))
    said = without_machine_paths(dict(dataset=dataset))
    assert said == dict(dataset=dict(data_root="data/street", data_prefix=dict(img_path="a/b", other="c")))


def test_accounts_of_trackers_are_left_out():
    visualizer = dict(vis_backends=[dict(type="WandbVisBackend", init_kwargs=dict(entity="ann"))])
    assert without_machine_paths(dict(visualizer=visualizer)) == dict(
        visualizer=dict(vis_backends=[dict(type="LocalVisBackend")])
    )


def test_a_user_without_a_name_and_root_hide_nothing(monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert without_machine_paths("a/b") == "a/b"
    monkeypatch.setattr(machine_paths.getpass, "getuser", lambda: "root")
    assert without_machine_paths("data/root/b") == "data/root/b"
