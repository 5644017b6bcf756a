"""The image's recipe, read as a builder reads it, by the rules that make it small, safe and repeatable.

``python tests/test_dockerfile.py FOLDER`` carries out its first stage in an empty folder, and no container:
what it copies is copied to FOLDER/src, and its commands run there, with FOLDER/danseg as the environment.
"""

import fnmatch
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
IGNORED = [
    line
    for line in DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    if line and not line.startswith("#")
]


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of every instruction, lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines()]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage; what stands before the first is left out."""
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def of(name: str, stage: int) -> list[str]:
    return [rest for one, rest in stages()[stage] if one == name]


def copied() -> list[str]:
    """What is copied from the repository."""
    return [
        source
        for stage in range(len(stages()))
        for rest in of("COPY", stage)
        if not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]


def is_sent(path: str) -> bool:
    """Whether the builder gets a file, by the last rule that fits; ``*`` and ``!`` as in the ignore file."""
    sent = True
    for rule in IGNORED:
        pattern = rule.removeprefix("!")
        parts = Path(path).parts
        if pattern.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        else:
            fits = fnmatch.fnmatch(parts[0], pattern)
        if fits:
            sent = rule.startswith("!")
    return sent


def test_its_base_has_a_version_and_can_be_another():
    assert instructions()[0][0] == "ARG"
    base = instructions()[0][1].removeprefix("BASE=")
    assert re.fullmatch(r"python:3\.1[0-3]-slim", base)
    assert [stage[0][1] for stage in stages()] == ["${BASE} AS build", "${BASE}"]


def test_it_copies_what_is_there_and_is_sent():
    assert len(copied()) > 5
    for source in copied():
        assert (ROOT / source).exists(), source
        assert is_sent(source), source
    # All that the build of a wheel reads.
    assert {"setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "danseg", "configs", "tools"} <= set(
        copied()
    )


@pytest.mark.parametrize(
    "path",
    [".git/config", ".env", "data/street.png", "work_dirs/best.pth", "tests/conftest.py", ".venv/bin/python"]
    + ["danseg/__pycache__/x.pyc", "docker/Dockerfile", "danseg/.mim/tools", "secrets.json", "id_rsa"],
)
def test_nothing_else_is_sent(path):
    assert not is_sent(path)


def test_its_last_stage_runs_as_nobody_in_particular():
    [user] = of("USER", -1)
    assert user.isdigit() and int(user) > 0
    names = [name for name, _ in stages()[-1]]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert f"--uid {user} " in of("RUN", -1)[0]
    assert not [rest for name, rest in stages()[-1][names.index("USER") :] if name in ("RUN", "COPY")]


def test_it_holds_no_secrets_and_fetches_nothing_by_address():
    text = DOCKERFILE.read_text()
    assert not re.search(r"(?i)secret|token|passw|api_?key|private", text)
    addresses = re.findall(r"\w+://[^\s/'\"]+", text)
    assert addresses == ["http://127.0.0.1:8000"] and not [one for one in instructions() if one[0] == "ADD"]


def test_what_it_installs_has_the_tested_versions_and_leaves_no_cache():
    installs = [
        words
        for command in of("RUN", 0)
        for part in command.split("&&")
        if "pip" in (words := part.split())[0].rpartition("/")[2] and words[1] == "install"
    ]
    assert len(installs) == 4
    for words in installs:
        assert "--no-cache-dir" in words and "requirements/lock.txt" in words
        names = [files for flag, files in zip(words, words[1:], strict=False) if "constraint" in flag]
        assert all((ROOT / name).is_file() for name in names)
    extras = re.search(r'"\.\[([\w,]+)\]"', " ".join(of("RUN", 0)))[1].split(",")
    assert extras == ["onedl", "serve"]
    with pytest.MonkeyPatch.context() as patch:
        given: dict = {}
        patch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
        runpy.run_path(str(ROOT / "setup.py"))
    assert set(extras) <= set(given["extras_require"])


def test_it_serves_and_tells_whether_it_lives(tool):
    entry, default = (json.loads(of(name, -1)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert entry[:2] == ["danseg", "serve"]
    args = tool("serve").parse_args([*entry[2:], *default])
    [port], [health] = of("EXPOSE", -1), of("HEALTHCHECK", -1)
    assert (args.host, str(args.port)) == ("0.0.0.0", port) and f":{port}/healthz" in health
    code = json.loads(health.partition("CMD ")[2])
    assert code[:2] == ["python", "-c"]
    compile(code[2], "HEALTHCHECK", "exec")


def main(folder: Path) -> None:
    """Carry out the first stage in an empty folder."""
    source, environment = folder / "src", folder / "danseg"
    source.mkdir(parents=True)
    for name, rest in stages()[0]:
        if name == "COPY":
            *files, target = rest.split()
            for one in files:
                if (ROOT / one).is_dir():
                    shutil.copytree(
                        ROOT / one, source / target, ignore=shutil.ignore_patterns("__pycache__", ".mim")
                    )
                else:
                    shutil.copy(ROOT / one, source / target)
        elif name == "RUN":
            print(f"RUN {rest}", flush=True)
            command = rest.replace("/opt/danseg", str(environment))
            subprocess.run(["sh", "-ec", command], cwd=source, check=True)
    shutil.rmtree(source)  # the last stage has the environment alone
    subprocess.run(
        [environment / "bin" / "danseg", "serve", "--help"], check=True, env={**os.environ, "PYTHONPATH": ""}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
