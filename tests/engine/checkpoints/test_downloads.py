"""Weights behind an address: fetched whole into the cache, with their hash, from a server on this machine."""

import functools
import hashlib
import http.server
import os
import threading

import pytest
import torch

from danseg.engine.checkpoints import downloads
from danseg.engine.checkpoints.checkpoint import read_checkpoint
from danseg.engine.checkpoints.downloads import local_file
from danseg.errors import UserError


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, remembers what was asked for, and cuts what is named so."""

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def copyfile(self, source, target):
        content = source.read()
        target.write(content[: len(content) // 2] if "cut" in self.path else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """(address, folder behind it, cache, list of what was asked for)."""
    folder, cache = tmp_path / "served", tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    handler = functools.partial(_Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder, cache, server.asked
        server.shutdown()


def put(folder, name="weights{}.pth", value=1.0):
    """Save weights under a name that may carry their hash; returns the file."""
    torch.save({"state_dict": {"a": torch.full((2,), value)}}, folder / "new")
    digits = hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
    return (folder / "new").rename(folder / name.format(f"-{digits}"))


def refused(source):
    with pytest.raises(UserError) as caught:
        local_file(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_once_and_verified(served):
    address, folder, cache, asked = served
    file = put(folder)
    for _ in range(2):
        content = read_checkpoint(f"{address}/{file.name}")
    assert content["state_dict"]["a"].tolist() == [1, 1] and len(asked) == 1
    assert os.listdir(cache) == [file.name] and (cache / file.name).read_bytes() == file.read_bytes()


def test_what_is_not_as_its_name_says_is_refused(served):
    address, folder, cache, _ = served
    file = put(folder)
    wrong = file.rename(folder / "weights-01234567.pth")
    assert "invalid hash value" in refused(f"{address}/{wrong.name}") and not list(cache.iterdir())
    (cache / wrong.name).write_bytes(wrong.read_bytes())  # as a tool that compares nothing leaves it
    said = refused(f"{address}/{wrong.name}")
    assert f"{cache / wrong.name}" in said and "not with 01234567. Delete it" in said


def test_an_address_tells_the_hash_and_unmarked_names_do_not_mix(served, capsys):
    address, folder, cache, _ = served
    file = put(folder, "best.pth", 2.0)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()
    assert local_file(f"{address}/best.pth#sha256={digits}").name == f"best-{digits}.pth"
    assert "invalid hash value" in refused(f"{address}/best.pth#sha256=0123456789")
    assert "#md5=00: a hash is written #sha256=" in refused(f"{address}/best.pth#md5=00")
    (folder / "other").mkdir()
    put(folder / "other", "best.pth", 3.0)
    for place, value in (("", 2), ("/other", 3)):
        assert read_checkpoint(f"{address}{place}/best.pth")["state_dict"]["a"][0] == value
    assert len(list(cache.iterdir())) == 3 and "is taken as fetched on" not in capsys.readouterr().err
    downloads._told.clear()  # as in another run, where the file behind the address may be another one
    for _ in range(2):
        local_file(f"{address}/best.pth")
    assert capsys.readouterr().err.count(f"{address}/best.pth is taken as fetched on 20") == 1


def test_nothing_half_enters_the_cache(served):
    address, folder, cache, _ = served
    put(folder, "cut.pth")
    (folder / "page.pth").write_text("<html>log in</html>")
    assert f"what {address}/cut.pth gave is no whole checkpoint" in refused(f"{address}/cut.pth")
    assert "neither a PyTorch checkpoint nor" in refused(f"{address}/page.pth")
    said = refused(f"{address}/missing.pth")
    assert "404" in said and f"put it in place as {cache}" in said
    assert "refused" in refused("http://127.0.0.1:9/a.pth")  # nobody listens there
    assert not list(cache.iterdir())


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    import socket

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "_SILENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "timed out" in refused(f"http://127.0.0.1:{server.getsockname()[1]}/a.pth")
    assert socket.getdefaulttimeout() is None


def test_short_names_have_addresses(served, monkeypatch):
    address, folder, _, asked = served
    file = put(folder)
    mmengine, ours = "mmengine.runner.checkpoint", "danseg.engine.checkpoints.downloads"
    for kind, function in (
        ("open-mmlab", f"{mmengine}.get_external_models"),
        ("openmmlab", f"{mmengine}.get_external_models"),
        ("mmcls", f"{mmengine}.get_mmcls_models"),
        ("torchvision", f"{ours}.torchvision_models"),
        ("modelzoo", f"{ours}.torchvision_models"),
        ("timm", f"{ours}.timm_models"),
    ):
        monkeypatch.setattr(function, lambda: {"resnet50": f"{address}/{file.name}"})
        assert local_file(f"{kind}://resnet50").name == file.name
        assert "did you mean 'resnet50'?" in refused(f"{kind}://resnet5")
    assert len(asked) == 1
    assert "s3:// is no kind of address" in refused("s3://bucket/a.pth")


def test_all_that_mmengine_lists_has_an_address():
    names = downloads._models("open-mmlab", "")
    assert len(names) > 40 and downloads.address_of("open-mmlab://resnet50_v1c").endswith("-2cccc1ad.pth")
    assert downloads._hash(names["resnet50_v1c"], "") == "2cccc1ad"
    marked = [name for name, url in names.items() if downloads._hash(url, "")]
    assert len(marked) > len(names) * 0.7
    assert all(downloads._file_name(url, downloads._hash(url, "")) for url in names.values())


def test_a_local_file_stays_as_it_is():
    assert str(local_file("some/where.pth")) == "some/where.pth"
