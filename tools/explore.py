"""Show where a network's attention looks in a picture: ``danseg explore CONFIG CHECKPOINT IMAGE``.

    python tools/explore.py CONFIG CHECKPOINT street.png --points 640,400 200,350 --out street.pdf

draws the picture, its prediction and a row for each of the head's views: where the numbered positions look,
which channels or branches weigh most. ``--effect`` adds what the labels are without the attention,
``--numbers`` writes it all as NumPy's ``.npz``, and

    python tools/explore.py CONFIG CHECKPOINT street.png --path 100,400 900,400 --out street.gif

an animation of a position that moves. docs/explore.md says the rest.
"""

import argparse
import re
from collections.abc import Sequence

from danseg.tool_arguments import (
    add_cfg_options,
    add_data,
    add_device,
    add_trained,
    number,
    parse_trained,
    pixel,
)

# Options of what is drawn into files, beside those that the page begins with.
ON_FILES = ("out", "numbers", "overwrite", "path", "module", "effect", "class_map", "same_scale")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Show where a network's attention looks in a picture, and what it does.",
        epilog="The picture passes through the network once, as a whole. Without --view and --module, the "
        "views of the head are shown. A view or module that does not exist is answered by the names of those "
        "that do.",
    )
    add_trained(parser)
    add_data(parser)
    parser.add_argument("image", nargs="+", help="one picture's file")
    parser.add_argument(
        "--points",
        nargs="+",
        default=[],
        metavar="x,y",
        help="pixels whose attention to show, counted from the upper left corner; default: the middles of "
        "the 3 largest segments of different classes",
    )
    parser.add_argument(
        "--view",
        nargs="+",
        default=[],
        metavar="KEY",
        help="what to show, such as decode_head.pam or 'decode_head.cca:recurrence 1'",
    )
    parser.add_argument(
        "--module", nargs="+", default=[], metavar="PATH", help="show all views of this module of the network"
    )
    parser.add_argument(
        "--same-scale", action="store_true", help="one colour scale for all maps of a kind, or for all frames"
    )
    parser.add_argument(
        "--effect",
        action="store_true",
        help="also show the labels without the attention of each module that is shown; a pass more for each",
    )
    parser.add_argument(
        "--class-map",
        nargs="+",
        default=[],
        metavar="CLASS|x,y",
        help="also show which cells of the backbone's last stage speak for a class, by its name, or for the "
        "label of a pixel (Grad-CAM; of any network; a pass and its gradient for each)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="a figure (*.png, *.pdf), with --path an animation (*.gif); default: IMAGE_attention.png or "
        ".gif in the current folder, unless --numbers alone is asked for",
    )
    parser.add_argument("--numbers", metavar="FILE", help="write all numbers (*.npz)")
    parser.add_argument(
        "--path", nargs="+", default=[], metavar="x,y", help="move a position along these points"
    )
    parser.add_argument(
        "--frames",
        type=number(int, 2, 1000),
        default=24,
        metavar="N",
        help="positions along --path (default: %(default)s)",
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="open the page of danseg app on this picture, at a point and a view that are named, instead",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of --out and --numbers")
    add_cfg_options(parser)
    add_device(parser)
    return parse_trained(parser, argv, then="image")


def run(args: argparse.Namespace) -> None:
    question, image = _checked(args)
    if args.interactive:
        _interactive(args, question, image)
        return
    from danseg.apis.explore_files import Question, check_targets, explore_file
    from danseg.engine.config.cfg_options import parse_options
    from danseg.engine.out_of_memory import explaining_memory
    from danseg.export.exported_config import trained_config

    config = trained_config(args.config, parse_options(args.cfg_options), args.data)
    figure, numbers = check_targets(
        args.out, args.numbers, image, moving=bool(args.path), overwrite=args.overwrite
    )
    with explaining_memory("take a smaller picture", "compute on the CPU (--device cpu)"):
        lines = explore_file(
            config,
            args.checkpoint,
            image,
            Question(**question),
            figure=figure,
            numbers=numbers,
            device=args.device,
        )
        for line in lines:
            print(line)


def _interactive(args: argparse.Namespace, question: dict, image: str) -> None:
    """The page of ``danseg app``, with the picture alone to choose."""
    from pathlib import Path
    from urllib.parse import urlencode

    from danseg.app import launch
    from danseg.engine.config.cfg_options import parse_options
    from danseg.export.exported_config import trained_config

    view = {"view": args.view[0]} if args.view else {}
    point = dict(zip("xy", question["points"][0], strict=True)) if question["points"] else {}
    launch(
        [(trained_config(args.config, parse_options(args.cfg_options), args.data), args.checkpoint)],
        pictures=[Path(image)],
        device=args.device,
        hint=f"the picture is at /?{urlencode(dict(picture=0, **point, **view))}",
    )


def _checked(args: argparse.Namespace) -> tuple[dict, str]:
    """What is asked, as :class:`danseg.apis.explore_files.Question` takes it, and of which picture.

    Raises:
        UserError: options do not go together.
    """
    from danseg.errors import UserError

    image, *others = args.image
    if others:
        raise UserError(f"one picture at a time, and {image} is one; leave out {' '.join(others)}")
    points = [pixel("--points", text) for text in args.points]
    path = [pixel("--path", text) for text in args.path]
    if len(path) == 1:
        raise UserError(f"--path needs at least two points to move between, got {args.path[0]}")
    class_maps = [_target(text) for text in args.class_map]
    for option, given in (("--points", points), ("--effect", args.effect), ("--class-map", class_maps)):
        if path and given:
            raise UserError(
                f"--path moves one position, so {option} does not go with it; leave out one of the two"
            )
    if args.interactive and any(getattr(args, name) for name in ON_FILES):
        given = next(name for name in ON_FILES if getattr(args, name))
        raise UserError(
            f"--interactive opens a page and writes nothing; leave out --{given.replace('_', '-')}"
        )
    several = [*args.points[1:], *args.view[1:]]
    if args.interactive and several:
        raise UserError(f"--interactive begins at one point and one view; leave out {' '.join(several)}")
    asked = dict(
        points=points,
        path=path,
        frames=args.frames,
        views=args.view,
        modules=args.module,
        same_scale=args.same_scale,
        effect=args.effect,
        class_maps=class_maps,
    )
    return asked, image


def _target(text: str) -> str | tuple[int, int]:
    """A class's name, or a pixel."""
    return pixel("--class-map", text) if re.fullmatch(r"-?\d+,-?\d+", text) else text


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line, taking_back

    command_line(taking_back(run))(args)


if __name__ == "__main__":
    main()
