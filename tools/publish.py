"""Write a trained network as one file for others: ``python tools/publish.py CHECKPOINT --out FILE``.

The file, of safetensors or of torch, holds the weights, the config, the classes and the scores, and no state
of the training. It is used in place of CONFIG CHECKPOINT. Beside it lie the notes as JSON and a model card.
"""

import argparse
from collections.abc import Sequence

from danseg.tool_arguments import add_checkpoint, add_data


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write a trained network as one file for others, without the state of its training, with "
        "its config, classes and scores inside, and a model card beside it.",
        epilog="The file's name gets the first digits of its SHA-256. Paths of this machine are left out.",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--config", help="config that it was trained with (default: the one in the checkpoint)"
    )
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write: .safetensors or .pth")
    parser.add_argument(
        "--metrics",
        metavar="FILE",
        help="scores to say: metrics_*.json, which tools/test.py wrote of this checkpoint (default: those of "
        "its validation, if they lie beside it)",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from danseg.apis import load_model
    from danseg.convert.published import publish
    from danseg.engine.config.config_file import load_config

    config = load_config(args.config or args.checkpoint, data=args.data)
    model = load_model(config, args.checkpoint, "cpu")
    for path in publish(model, config, args.checkpoint, args.out, args.metrics):
        print(path)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)  # before anything that takes long to import
    from danseg.errors import command_line

    command_line(run)(args)


if __name__ == "__main__":
    main()
