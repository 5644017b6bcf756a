"""tools/explore.py from its command line."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import danseg.app
from danseg import apis
from danseg.visualization import read_image, segment_centres

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def main(tool):
    return tool("explore").main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config, random weights whose predictions vary over the image, and an image of 48 x 80."""
    folder = tmp_path_factory.mktemp("explore")
    config = folder / "tiny.py"
    config.write_text(f'_base_ = ["{ROOT / "tests" / "engine" / "tiny.py"}"]\n')
    torch.manual_seed(0)
    model = apis.load_model(config, None, "cpu")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    for scale in (model.decode_head.pam.gamma.scale, model.decode_head.cam.gamma.scale):
        scale.data.fill_(0.7)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / "weights.pth")
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "street.png"), cv2.resize(coarse, (80, 48), interpolation=cv2.INTER_CUBIC))
    return str(config), str(folder / "weights.pth"), str(folder / "street.png")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failing(main, capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--device", "cpu"])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count("error: ") == 1 and "Traceback" not in said, said
    return said


def test_a_figure_and_what_it_shows_in_words(main, trained, here, capsys):
    main([*trained, "--effect", "--device", "cpu"])
    said = capsys.readouterr().out.splitlines()
    assert [path.name for path in here.iterdir()] == ["street_attention.png"]
    assert said[-1] == "street_attention.png"
    exploration = apis.explore(apis.load_model(*trained[:2], "cpu"), trained[2])
    positions = segment_centres(exploration.labels, 3)
    for number, ((x, y), line) in enumerate(zip(positions, said, strict=False), 1):
        probabilities = exploration.probabilities((x, y))
        first = int(probabilities.argmax())
        beginning = f"{number}: x={x}, y={y}: {exploration.classes[first]} {probabilities[first]:.2f}, "
        assert line.startswith(beginning)
    effects = [exploration.effect(module).summary() for module in exploration.modules]
    assert said[len(positions) : -1] == effects and len(effects) == 2
    height, width = read_image(here / "street_attention.png").shape[:2]
    assert width > 3 * 500 and height > 4 * 300  # comparison, two views, two effects


def test_numbers_are_those_of_an_exploration(main, trained, here):
    points = [(10, 20), (79, 47)]
    main(
        [*trained, "--points", "10,20", "79,47", "--effect", "--numbers", "new/street.npz", "--device", "cpu"]
    )
    assert [path.name for path in here.rglob("*") if path.is_file()] == ["street.npz"]  # no figure unasked
    exploration = apis.explore(apis.load_model(*trained[:2], "cpu"), trained[2])
    found = np.load(here / "new" / "street.npz")  # without pickles
    assert (found["positions"] == points).all() and tuple(found["classes"]) == exploration.classes
    assert found["labels"].dtype == np.uint8 and (found["labels"] == exploration.labels).all()
    for position, row in zip(points, found["probabilities"], strict=True):
        np.testing.assert_allclose(row, exploration.probabilities(position), rtol=1e-5)
    assert list(found["views"]) == list(exploration.views) == ["decode_head.pam", "decode_head.cam"]
    assert list(found["kinds"]) == ["position", "channels"] and list(found["values"]) == ["shares"] * 2
    np.testing.assert_allclose(found["scales"], [0.7, 0.7], rtol=1e-6)
    maps = exploration.attention("decode_head.pam", points)
    np.testing.assert_allclose(found["attention/decode_head.pam"], maps.rows, rtol=1e-4, atol=1e-7)
    for name in ("image_size", "input_size", "content_size", "offset"):
        assert tuple(found[name]) == tuple(getattr(maps.placement, name))
    rows = exploration.attention("decode_head.cam").weights
    np.testing.assert_allclose(found["attention/decode_head.cam"], rows, rtol=1e-3, atol=1e-6)
    served = exploration.channel_classes("decode_head.cam")
    assert list(found["serves/decode_head.cam"]) == [exploration.classes[one] for one in served]
    effect = exploration.effect("decode_head.pam", points)
    assert (found["labels_without/decode_head.pam"] == effect.labels).mean() > 0.99
    np.testing.assert_allclose(found["logits_with/decode_head.pam"], effect.with_attention, rtol=1e-3)
    np.testing.assert_allclose(found["logits_without/decode_head.pam"], effect.without, rtol=1e-3)


def test_views_and_modules_that_are_chosen(main, trained, here):
    for number, chosen in enumerate((["--view", "decode_head.cam"], ["--module", "decode_head.pam"])):
        main([*trained, *chosen, "--numbers", f"{number}.npz", "--device", "cpu"])
    assert [list(np.load(f"{one}.npz")["views"]) for one in (0, 1)] == [
        ["decode_head.cam"],
        ["decode_head.pam"],
    ]


def test_a_pdf_and_a_common_scale(main, trained, here):
    main([*trained, "--out", "a.pdf", "--same-scale", "--device", "cpu"])
    assert (here / "a.pdf").read_bytes().startswith(b"%PDF-")


def test_a_position_that_moves(main, trained, here, capsys):
    main([*trained, "--path", "5,5", "75,5", "75,40", "--frames", "4", "--device", "cpu"])
    assert capsys.readouterr().out.split() == ["street_attention.gif"]
    with Image.open("street_attention.gif") as animation:
        assert animation.n_frames == 4 and animation.info["loop"] == 0
        frames = []
        for number in range(4):
            animation.seek(number)
            frames.append(np.asarray(animation.convert("RGB"), float))
    assert all(np.abs(one - other).max() > 100 for one, other in zip(frames, frames[1:], strict=False))


def test_files_are_replaced_on_request_alone(main, trained, here, capsys):
    (here / "a.png").write_text("mine")
    (here / "a.npz").write_text("mine")
    said = failing(main, capsys, *trained, "--out", "a.png")
    assert "a.png exists; name another --out, or replace it by --overwrite" in said
    said = failing(main, capsys, *trained, "--out", "b.png", "--numbers", "a.npz")
    assert "a.npz exists; name another --numbers, or replace it by --overwrite" in said
    assert not (here / "b.png").exists() and (here / "a.png").read_text() == "mine"
    main([*trained, "--out", "a.png", "--overwrite", "--device", "cpu"])
    assert read_image(here / "a.png").shape[1] > 1000
    shutil.copy(trained[2], here / "own.png")
    said = failing(main, capsys, *trained[:2], "own.png", "--out", "own.png", "--overwrite")
    assert "own.png is the picture itself" in said and read_image(here / "own.png").shape == (48, 80, 3)


MISTAKES = [
    (["--points", "80,0"], "x=80, y=0 lies outside the image: x goes from 0 to 79, y from 0 to 47"),
    (["--points", "3;4"], "--points takes pixels as x,y, two whole numbers such as 640,400; got '3;4'"),
    (["--path", "1,1", "90,1"], "lies outside the image"),
    (["--path", "1,1"], "--path needs at least two points"),
    (["--path", "1,1", "2,2", "--points", "1,1"], "--path moves one position, so --points does not go"),
    (["--path", "1,1", "2,2", "--effect"], "so --effect does not go with it"),
    (["--path", "1,1", "2,2", "--class-map", "road"], "so --class-map does not go with it"),
    (["--class-map", "rode"], "there is no class 'rode'"),
    (["--class-map", "80,0"], "x=80, y=0 lies outside the image"),
    (["--path", "1,1", "2,2", "--view", "decode_head.cam"], "decode_head.cam show the same for all"),
    (["--path", "1,1", "2,2", "--out", "a.png"], "with --path, --out is an animation, so name it *.gif"),
    (["--view", "pam"], "there is no view 'pam'; there are decode_head.pam, decode_head.cam"),
    (["--module", "pam"], "no module 'pam' has attention to show; there are decode_head.pam, decode_head"),
    (["--module", "backbone.layer1"], "ResLayer has no attention to show; these have: decode_head.pam"),
    (["--out", "a.svg"], "a.svg: --out is a figure, so name it *.png or *.pdf"),
    (["--out", "a.gif"], "name it *.png or *.pdf; .gif needs --path"),
    (["--numbers", "a.csv"], "a.csv: the numbers are NumPy's *.npz; name it so"),
    (
        ["--interactive", "--points", "1,1", "2,2"],
        "--interactive begins at one point and one view; leave out 2,2",
    ),
    (["--interactive", "--out", "a.png"], "--interactive opens a page and writes nothing; leave out --out"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=lambda one: " ".join(one)[:30])
def test_a_mistake_is_one_message_and_writes_nothing(main, trained, here, capsys, options, message):
    assert message in failing(main, capsys, *trained, *options)
    assert not list(here.iterdir())


def test_pictures_that_are_none(main, trained, here, capsys):
    text, deep = here / "text.png", here / "deep.png"
    text.write_text("text")
    cv2.imwrite(str(deep), np.zeros((48, 80, 3), np.uint16))
    for picture, message in (
        (text, "text.png cannot be read"),
        (deep, "uint16"),
        (here / "no.png", "not exist"),
    ):
        assert message in failing(main, capsys, *trained[:2], picture, "--out", "out.png")
    assert "one picture at a time" in failing(main, capsys, *trained, "other.png")
    assert not (here / "out.png").exists()


def test_networks_that_show_nothing(main, trained, here, capsys, monkeypatch):
    config = here / "plain.py"
    config.write_text(
        f"_base_ = [{trained[0]!r}]\nmodel = dict(decode_head=dict(_delete_=True, type='FCNHead', "
        "num_convs=1, in_channels=64, in_index=3, channels=8, num_classes=19, align_corners=False))\n"
    )
    torch.save(dict(state_dict=apis.load_model(config, None, "cpu").state_dict(), meta={}), "plain.pth")
    said = failing(main, capsys, config, "plain.pth", trained[2], "--out", "out.png")
    assert "FCNHead has no attention to show" in said and not (here / "out.png").exists()


def test_class_maps_of_any_network(main, trained, here, capsys):
    config = here / "plain.py"
    config.write_text(
        f"_base_ = [{trained[0]!r}]\nmodel = dict(decode_head=dict(_delete_=True, type='FCNHead', "
        "num_convs=1, in_channels=64, in_index=3, channels=8, num_classes=19, align_corners=False))\n"
    )
    torch.save(dict(state_dict=apis.load_model(config, None, "cpu").state_dict(), meta={}), "plain.pth")
    plain = (str(config), "plain.pth", trained[2])
    for network, views in ((trained, ["decode_head.pam", "decode_head.cam"]), (plain, [])):
        model = apis.load_model(*network[:2], "cpu")
        labels = apis.predict(model, trained[2])
        name = model.dataset_meta["classes"][labels[20, 10]]
        main(
            [
                *network,
                "--class-map",
                name,
                "10,20",
                "--out",
                "a.png",
                "--numbers",
                "a.npz",
                "--device",
                "cpu",
            ]
        )
        found = np.load("a.npz")
        assert list(found["views"]) == views
        for target, key in ((name, name), ((10, 20), "10,20")):
            expected = apis.class_activation_map(model, trained[2], target)
            np.testing.assert_allclose(found[f"class_map/{key}"], expected.rows[0], rtol=1e-4, atol=1e-6)
        height = read_image("a.png").shape[0]
        assert (len(views) + 2) * 300 < height < (len(views) + 3) * 500  # both maps in one row
        for path in ("a.png", "a.npz"):
            Path(path).unlink()
    said = failing(main, capsys, *plain, "--class-map", name, "--effect", "--out", "a.png")
    assert "FCNHead has no attention to show" in said


def test_the_page_gets_the_network_and_the_picture(main, trained, monkeypatch):
    opened = []
    monkeypatch.setattr(danseg.app, "launch", lambda *args, **options: opened.append((args, options)))
    main([*trained, "--interactive", "--device", "cpu"])
    main([*trained, "--interactive", "--points", "7,5", "--view", "decode_head.cam", "--device", "cpu"])
    for ([[(config, checkpoint)]], options), place in zip(
        opened, ("picture=0", "picture=0&x=7&y=5&view=decode_head.cam"), strict=True
    ):
        assert config.filename == trained[0] and checkpoint == trained[1]
        assert options == dict(pictures=[Path(trained[2])], device="cpu", hint=f"the picture is at /?{place}")
