"""Start a page: load the networks, listen, and take back all that was stored."""

import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gradio.networking import setup_tunnel
from mmengine.config import Config

from danseg.apis import load_model
from danseg.apis.preparation import ready_for_inference
from danseg.app.explorer import Explorer
from danseg.app.page_limits import PageLimits
from danseg.app.page_server import page_application
from danseg.app.shown_network import ShownNetwork, names_of, pictures_of_the_set
from danseg.engine.out_of_memory import explaining_memory
from danseg.errors import UserError
from danseg.web.server import bound_socket, serve


def launch(
    trained: Sequence[tuple[Config, str]],
    limits: PageLimits | None = None,
    *,
    pictures: Sequence[Path] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    device: str | None = None,
    precision: str = "float32",
    share: bool = False,
    hint: str = "",
) -> None:
    """Show networks on a page until SIGTERM or SIGINT comes; for the main thread.

    Args:
        trained: configs and checkpoints, at least one of each.
        limits: what is taken and kept.
        pictures: files to choose from; by default those of the set that the first config tests on.
        host, port: where to listen; port 0 takes any that is free, which is printed.
        device, precision: as for :func:`danseg.apis.load_model` and
            :func:`danseg.apis.prepare_for_inference`.
        share: whether to ask Gradio's servers for a public address that leads here.
        hint: printed behind the address.

    Raises:
        UserError: the port is taken, a network cannot be loaded or shows no attention, or there is no public
            address.
    """
    with bound_socket(host, port) as listening, tempfile.TemporaryDirectory(prefix="danseg-app-") as name:
        os.environ["GRADIO_TEMP_DIR"] = name  # where Gradio would write, were it asked to
        names = names_of([(str(config.filename), checkpoint) for config, checkpoint in trained])
        networks = []
        with explaining_memory("compute on the CPU (--device cpu)"):
            for (config, checkpoint), called in zip(trained, names, strict=True):
                model = ready_for_inference(load_model(config, checkpoint, device), precision=precision)
                networks.append(ShownNetwork(model, called))
        missing = ""
        if pictures is None:
            pictures, missing = pictures_of_the_set(networks[0].model.cfg)
        if missing:
            print(f"no pictures of the test set to choose from: {missing}", flush=True)
        explorer = Explorer(networks, pictures, Path(name), limits or PageLimits())
        explorer.hint = hint
        app = page_application(explorer)
        if share:
            _share(host, listening.getsockname()[1])
        serve(app, explorer, listening)


def _share(host: str, port: int) -> None:
    local = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    try:
        address = setup_tunnel(local, port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # of the network, of the tunnel's program
        raise UserError(f"there is no public address to be had: {error}; leave out --share") from error
    print(f"anyone who knows {address} can use it", flush=True)
