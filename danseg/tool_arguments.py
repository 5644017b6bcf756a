"""The arguments that several tools take, each written once.

Nothing but the standard library is imported, so that help and wrong arguments are answered at once.
"""

import argparse
from collections.abc import Callable, Sequence

from danseg.model_files import CHECKPOINTS, EXPORTED, is_model_file
from danseg.shipped import as_started

AMP_TYPES = ("float16", "bfloat16")
PRECISIONS = ("float32", "bfloat16", "float16")  # those of danseg.apis, which imports torch


def number(kind: type[int] | type[float], low: float, high: float | None = None) -> Callable[[str], float]:
    """What reads a number from ``low`` to ``high`` (both allowed), for ``type`` of ``add_argument``."""
    allowed = f"a {'whole ' if kind is int else ''}number from {low:g}"
    if high is not None:
        allowed += f" to {high:g}"

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")  # which is in no range
        if not low <= value <= (float("inf") if high is None else high):
            raise argparse.ArgumentTypeError(f"expected {allowed}, got {text!r}")
        return value

    return read


parse_count = number(int, 1)


def pixel(option: str, text: str) -> tuple[int, int]:
    """Read a pixel ``x,y`` of an option.

    Raises:
        UserError: it is none.
    """
    from danseg.errors import UserError

    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"{option} takes pixels as x,y, two whole numbers such as 640,400; got {text!r}"
        ) from None
    return x, y


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help=as_started("config file, for example configs/danet_r18_camvid.py"))


def add_trained(
    parser: argparse.ArgumentParser, optional: bool = False, note: str = "", exported: bool = False
) -> None:
    """CONFIG and CHECKPOINT, or one file that carries both; :func:`parse_trained` has to read them.

    Args:
        parser: the tool's.
        optional: neither has to be there.
        note: the end of what help says of the checkpoint.
        exported: whether the tool takes an exported network, too.
    """
    also = f", or an exported network ({', '.join(EXPORTED)})" if exported else ""
    parser.add_argument(
        "config",
        nargs="?" if optional else None,
        help="config that the checkpoint was trained with; or, alone, a file of weights that carries its "
        f"config ({', '.join(CHECKPOINTS)}){also}",
    )
    add_checkpoint(parser, nargs="?", note=note)


def add_checkpoint(parser: argparse.ArgumentParser, nargs: str | None = None, note: str = "") -> None:
    parser.add_argument(
        "checkpoint",
        nargs=nargs,
        help=f"trained weights: a file ({', '.join(CHECKPOINTS)}) or its address (https://...){note}",
    )


def parse_trained(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    *,
    then: str = "",
    untrained: bool = False,
) -> argparse.Namespace:
    """Parse the arguments of a tool that has called :func:`add_trained`.

    Args:
        parser: the tool's.
        argv: its arguments; None for the command line's.
        then: the positional argument with a list that follows, such as "images".
        untrained: whether a config may stand without a checkpoint.

    Returns:
        The arguments; where one file carries both, ``config`` and ``checkpoint`` name it.
    """
    args = parser.parse_intermixed_args(argv)
    # argparse shares them out by their number alone.
    typed = [one for one in (args.config, args.checkpoint, *getattr(args, then, ())) if one is not None]
    if typed and is_model_file(typed[0]):
        typed.insert(1, typed[0])
    args.config, args.checkpoint, *others = (*typed, None, None)[: max(2, len(typed))]
    if args.config and not args.checkpoint and not untrained:
        parser.error("name the checkpoint, too: CONFIG CHECKPOINT, or a file that carries its config, alone")
    if then:
        setattr(args, then, others)
        if not others:
            parser.error(f"the following arguments are required: {then}")
    elif others:
        parser.error(
            f"{args.config} is a file of weights, and stands alone: leave out {others[0]}, or name a config "
            "before it"
        )
    return args


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="SET", help="your own data set (dataset.yaml), for a folder recipe")


def add_cfg_options(parser: argparse.ArgumentParser, of: str = "the config") -> None:
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=f"change entries of {of}, such as data_root=/data/cityscapes. A value is read as Python if it "
        "is that (1e-3, (512,1024), None, ['a','b'], [{'type':'EMAHook'}]), else it is text as typed; inside "
        "brackets single words are texts. \"KEY='(1)'\" is a text in any case. KEY may go through lists: "
        "param_scheduler.0.end",
    )


def add_work_dir(parser: argparse.ArgumentParser, what: str, default: str = "work_dirs/<config>") -> None:
    parser.add_argument("--work-dir", help=f"folder for {what} (default: {default})")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the GPU if there is one)")


def add_listening(parser: argparse.ArgumentParser, port: int, seconds: float) -> None:
    """Where a tool listens, and what it takes of requests: :mod:`danseg.web`."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s; 0.0.0.0 for all)"
    )
    parser.add_argument(
        "--port",
        type=number(int, 0, 65535),
        default=port,
        help="port to listen on; 0 for any that is free, which is printed (default: %(default)s)",
    )
    parser.add_argument(
        "--max-bytes",
        type=parse_count,
        default=32 * 2**20,
        metavar="N",
        help="of a request (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=parse_count,
        default=2**23,
        metavar="N",
        help="of a picture, as its header claims them (default: %(default)s, a frame of 3840x2160)",
    )
    parser.add_argument(
        "--timeout",
        type=number(float, 0.001),
        default=seconds,
        metavar="SECONDS",
        help="for a request, and for a stop (default: %(default)g)",
    )
    parser.add_argument(
        "--queue",
        type=parse_count,
        default=256,
        metavar="N",
        help="requests that are in work or wait; others get a 503 (default: %(default)s)",
    )


def add_precision(parser: argparse.ArgumentParser, note: str = "") -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help=f"type in which the network computes (default: float32){note}",
    )


def add_amp(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        choices=("auto", *AMP_TYPES),
        help="mixed precision (default type: float16 on CUDA, bfloat16 on CPU)",
    )


def add_tta(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tta", action="store_true", help="average over scales and flips (cfg.tta_pipeline)")


def add_patience(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--patience",
        type=float,
        default=5,
        metavar="MINUTES",
        help="warn if nothing moves for so long, and stop after twice that if data workers are why; "
        "0 waits for ever (default: %(default)g)",
    )


def add_processes(
    parser: argparse.ArgumentParser, share: str = "", arrive: str = "arrive", note: str = ""
) -> None:
    """The options of a run in several processes."""
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help=f"what started the processes{share}",
    )
    parser.add_argument(
        "--collective-timeout",
        type=float,
        default=30,
        metavar="MINUTES",
        help=f"stop if other processes do not {arrive} for so long (default: %(default)g){note}",
    )
    # torchrun passes this option in some modes; the environment holds the same number
    parser.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
