"""Trainings of one and of two processes that get signals: ``signalled.py CONFIG FOLDER``.

All cases run in one process and its forks, because importing takes longer than they do. Prints as JSON, for
each case, the exit status of every process and what each of them said.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from danseg.engine.config.config_file import load_config
from danseg.engine.distributed import process_group
from danseg.engine.stalled import watched
from danseg.engine.train import train
from danseg.errors import command_line

# How many processes there are, which signals the last of them gets, and when.
CASES = {
    "one rank of two": dict(ranks=2, point="before_train_iter", number=1, names=["SIGTERM"]),
    "a validation": dict(ranks=2, point="before_val_iter", number=1, names=["SIGTERM"]),
    "the last batch of one": dict(ranks=2, point="before_val_iter", number=2, names=["SIGTERM"]),
    # In the order in which Python handles signals that come at once.
    "workers": dict(ranks=1, point="before_train_iter", number=1, names=["SIGINT", "SIGUSR1", "SIGTERM"]),
}


@HOOKS.register_module()
class Sends(Hook):
    """The last rank and all its workers get signals, from a process that is neither."""

    def __init__(self, ranks: int, point: str, number: int, names: list[str]) -> None:
        self.rank, self.number, self.names = ranks - 1, number, names
        setattr(self, point, self.send)

    def send(self, runner, batch_idx, data_batch=None) -> None:
        if (runner.rank, batch_idx) == (self.rank, self.number):
            sender = os.fork()
            if sender == 0:
                for name in self.names:
                    signal.signal(signal.Signals[name], signal.SIG_IGN)
                    os.killpg(0, signal.Signals[name])
                os._exit(0)
            os.waitpid(sender, 0)


def run(rank: int, port: int, folder: Path, config: str, case: dict) -> None:
    """Be one rank, which ends as a tool does."""
    os.setsid()
    signal.alarm(120)  # ends what hangs
    with open(folder / f"{rank}.said", "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(case["ranks"]))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started by
    launcher = "pytorch" if case["ranks"] > 1 else "none"
    cfg = load_config(config, {"custom_hooks": [dict(type="Sends", **case)]})
    cfg.launcher, cfg.work_dir = launcher, str(folder / "work")
    cfg.train_dataloader.num_workers = 0 if launcher == "pytorch" else 2

    @command_line
    def main() -> None:
        with watched(5) as watch, process_group(launcher, watch, 2):
            train(cfg)

    main()


def fork(*arguments) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 0
    try:
        run(*arguments)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)


def main(config: str, root: str) -> None:
    Config.pretty_text = property(lambda config: "")  # setting it out takes most of a tiny training
    results = {}
    for name in CASES:
        folder = Path(root, name)
        folder.mkdir()
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        pids = [fork(rank, port, folder, config, CASES[name]) for rank in range(CASES[name]["ranks"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        results[name] = codes, [(folder / f"{rank}.said").read_text() for rank in range(len(pids))]
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
