"""Run a tool in several processes."""

import socket
import subprocess
import sys
from typing import Any

from child_process import ROOT, environment


def launch(processes: int, name: str, *arguments: Any) -> subprocess.CompletedProcess:
    """Run a file of tools/ in several CPU processes, as tools/dist_*.sh do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"),
            *(f"--master_port={port}", str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)),
            *("--launcher", "pytorch"),
        ],
        env=environment(CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
        timeout=300,
    )
