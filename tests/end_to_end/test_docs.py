"""The documentation: every block of code in it runs as it stands, and the site builds without a warning."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import fresh
import pytest

from axtrain.training.command_line import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
PAGES = sorted(page for page in DOCS.rglob("*.md") if BLOCK.search(page.read_text()))
EXECUTED = ("python", "sh")

# Each page is a session: its Python blocks share their names, its shell blocks see the files made so far.
RUNNER = """
import json, subprocess, sys
import matplotlib
matplotlib.use("Agg")
session = {"__name__": "__main__"}
for number, (language, code) in enumerate(json.loads(sys.stdin.read())):
    if language == "python":
        exec(compile(code, f"block {number}", "exec"), session)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
"""


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


# What these do, tests of the parts do too; names and options of all pages are looked up below.
SLOW = (
    "start.md",
    "first_hour.md",
    "concepts/chips.md",
    "concepts/fidelity.md",
    "concepts/training.md",
    "how_to/choose_a_multiplier.md",
    "how_to/choose_for_every_layer.md",
    "how_to/deploy.md",
    "how_to/find_the_lowest_voltage.md",
    "how_to/survive_soft_errors.md",
    "how_to/terminal.md",
    "how_to/tfmot.md",
    "how_to/track.md",
    "how_to/train_on_many_machines.md",
)


def page_of(page):
    name = str(page.relative_to(DOCS))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.mark.parametrize("page", [page_of(page) for page in PAGES])
def test_the_code_of_a_page(page, tmp_path):
    run = [block for block in blocks(page) if block[0] in EXECUTED]
    assert {language for language, _ in blocks(page)} <= {*EXECUTED, "text"}
    if not run:
        pytest.skip("Nothing but text in this page's blocks")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where the real `axtrain` is
    environment = {**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    installed = page.name == "start.md"  # the first page's commands are real processes, the others' forks
    done = fresh.run(RUNNER, cwd=tmp_path, env=environment, input=json.dumps(run), commands=not installed)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def found(name: str, path: list[str]):
    """What a dotted name stands for."""
    value = importlib.import_module(name)
    for part in path:
        value = getattr(value, part)
    return value


def names(tree):
    """Every `ax.one.other` and everything imported from axtrain: (module, attributes)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "axtrain":
            yield from ((node.module, [alias.name]) for alias in node.names)
        path = []
        while isinstance(node, ast.Attribute):
            path.insert(0, node.attr)
            node = node.value
        if path and isinstance(node, ast.Name) and node.id == "ax":
            yield "axtrain", path


def test_every_name_and_every_option_of_the_pages_is_there():
    """Of all pages, also of those that only `make slow` runs."""
    known, commands = 0, 0
    for language, code in (block for page in PAGES for block in blocks(page)):
        if language == "python":
            for module, path in names(ast.parse(code)):
                assert found(module, path) is not None
                known += 1
        elif language == "sh":
            for line in code.replace("\\\n", " ").splitlines():
                first, *words = shlex.split(line, comments=True) or [""]
                if first == "axtrain":
                    check(main, words)
                    commands += 1
    assert known > 100 and commands >= 15  # fewer would mean that the search for them broke


def check(command: click.Command, words: list[str]):
    """Every word that is a command's or an option's is one."""
    for number, word in enumerate(words):
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        if word.startswith("--"):
            assert word.partition("=")[0] in {*options, "--help"}, (command.name, word)
        elif isinstance(command, click.Group) and word in command.commands:
            return check(command.commands[word], words[number + 1 :])
    assert command is not main or {"--help", "--version"} & set(words), words


PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*\ssrc=[\"']([^\"']+)")


def test_every_picture_is_there_and_small():
    pages = [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]
    shown = [(page, inline or tag) for page in pages for inline, tag in PICTURE.findall(page.read_text())]
    local = [page.parent / name for page, name in shown if "://" not in name]
    assert len(local) >= 5
    missing = [str(path) for path in local if not path.is_file()]
    assert not missing, f"python docs/draw_pictures.py draws those of docs/pictures. Received: {missing}"
    large = [str(path) for path in local if path.stat().st_size > 150_000]
    assert not large
    drawn = {path.resolve() for path in local if path.parent.resolve() == DOCS / "pictures"}
    assert drawn == {path.resolve() for path in (DOCS / "pictures").iterdir()}


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    missing = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if str(page.relative_to(DOCS)) not in menu]
    assert not missing


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra `docs`: mkdocs-material and mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # the theme's word about its own future
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "WARNING" not in done.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    assert "<title>axtrain</title>" in page
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+)"', page)
    assert not [address for address in loaded if "axtrain" not in address and "squidfunk" not in address]
