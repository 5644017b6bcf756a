"""Serve a trained model over HTTP: ``python tools/serve.py CONFIG CHECKPOINT``.

Pictures come by POST, and labels, areas or overlays go back; docs/serving.md says what is answered::

    curl -F image=@street.png 'http://127.0.0.1:8000/segment?output=areas'
"""

import argparse
import os
from collections.abc import Sequence

from danseg.tool_arguments import (
    add_cfg_options,
    add_data,
    add_device,
    add_listening,
    add_precision,
    add_trained,
    number,
    parse_count,
    parse_trained,
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Serve a trained model over HTTP: pictures come by POST, and labels, areas or overlays "
        "go back.",
        epilog="SIGTERM and Ctrl-C stop it: what was accepted is answered, and new requests get a 503. One "
        "process serves one model; for several GPUs, start one for each behind a reverse proxy.",
    )
    add_trained(parser)
    add_data(parser)
    add_listening(parser, port=8000, seconds=20)
    parser.add_argument(
        "--batch-size",
        type=parse_count,
        metavar="N",
        help="pictures of equal size that go through the network together (default: 16, or fewer that have 2 "
        "megapixels)",
    )
    parser.add_argument(
        "--max-wait",
        type=number(float, 0),
        default=5,
        metavar="MS",
        help="for so long the first picture of a batch waits for others (default: %(default)g)",
    )
    add_precision(parser, note="; float16 needs a GPU")
    add_device(parser)
    add_cfg_options(parser)
    return parse_trained(parser, argv)


def run(args: argparse.Namespace) -> None:
    # OpenCV reads it when it is imported. The header was looked at before; this is for one that deceives.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(args.max_pixels))
    from danseg.apis import load_model
    from danseg.apis.preparation import ready_for_inference
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.out_of_memory import explaining_memory
    from danseg.export.exported_config import trained_config
    from danseg.serve import Limits, Service, application, bound_socket, serve

    limits = Limits(args.max_bytes, args.max_pixels, args.timeout, args.queue, args.max_wait / 1000)
    with bound_socket(args.host, args.port) as listening:  # a port that is taken is told before all else
        config = trained_config(args.config, parse_options(args.cfg_options), args.data)
        with explaining_memory("compute on the CPU (--device cpu)"):
            model = load_model(config, args.checkpoint, args.device)
            service = Service(ready_for_inference(model, precision=args.precision), limits, args.batch_size)
        serve(application(service), service, listening)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
