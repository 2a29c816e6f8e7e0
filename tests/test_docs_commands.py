"""Every command the documentation shows is run as it stands, on sources that the sandbox plays.

Of a page its ```console and ```python blocks are run, in order and in one shell session. A block that cannot be has
`<!-- not run: REASON -->` on the line before it; `NOT_RUN` counts them. A program with a title is also written to a
file of that name.

A command that stays (`STAYS`) is started, waited for until it says that it is ready, and stopped by SIGINT when another
one that stays follows or the page ends. A line whose comment says "exits 3" may end with 3. Addresses of the pages are
replaced: the server on port 8000 by one on a free port, the database server of the examples by an empty database.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer
from psycopg.conninfo import conninfo_to_dict

from market_data.cli.app import app
from market_data.cli.program import globals_first
from market_data.sandbox import Sandbox
from market_data.storage.server.embedded import EmbeddedServer

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
IN_MAKE_TEST = ("docs/howto/ask-as-of.md",)
NOT_RUN = {"README.md": 1, "CONTRIBUTING.md": 1, "docs/tutorial.md": 1, "docs/howto/add-a-rule.md": 1}  # fmt: skip
STAYS = {
    r"market-data .*\bup$|make (demo|live)$": "up to date",
    r"market-data .*\bworker$": "up to date",
    r"market-data .*\bscheduler$": "next: ",
    r"market-data .*\bserve\b": "serving on ",
    r"market-data .*\bsandbox$": "serving until Ctrl-C",
}
COMMAND_SECONDS = 180
BLOCK = re.compile(
    r"(?: *<!-- (?:not run: (?P<reason>[^\n]*)|(?P<recipe>in|at the end of|before `[^`]+` in) [^\n]*) -->\n)?"
    r"^ *```(?P<kind>console|python|sh)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)
SERVER = "postgresql://market:secret@db.example.com/market"
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "'64MB'"}
# Some way up: what is tracked and filled there is less, so that it is quick.
LITTLE = {
    "INSTRUMENTS__TRACKED__CRYPTO": "BTC",
    "INSTRUMENTS__TRACKED__STOCK": "KO",
    "INSTRUMENTS__TRACKED__ETF": ",",
    "INSTRUMENTS__TIMEFRAMES__CRYPTO": "1d",
    "INSTRUMENTS__TIMEFRAMES__STOCK": "1d",
}


@dataclass(frozen=True)
class Block:
    """What is run of one fenced block: shell lines, or a program; None with a reason when it is not."""

    kind: str
    commands: tuple[str, ...]
    not_run: str | None
    title: str | None
    recipe: str | None = None


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page that hold commands."""
    for found in BLOCK.finditer(text):
        body = textwrap.dedent(found["text"])
        if found["kind"] == "python":
            commands = [body]
        else:
            assert found["kind"] == "console", "shell lines stand in ```console, each after `$ `"
            commands = [line.removeprefix("$ ").strip() for line in body.splitlines() if line.startswith("$ ")]
        # What belongs into a file of the project is run by tests/recipes.
        yield Block(found["kind"], tuple(commands), found["reason"], found["title"], found["recipe"])


@dataclass
class Session:
    """One shell: what a line exports holds for the lines after it."""

    folder: Path
    environ: dict[str, str]
    replaced: dict[str, str]
    failures: list[str] = field(default_factory=list)
    staying: subprocess.Popen[str] | None = None
    staying_line: str = ""

    def run(self, page: str) -> None:
        """Run a page; what went wrong is in `failures`."""
        for block in blocks((ROOT / page).read_text(encoding="utf-8")):
            if block.title:
                (self.folder / block.title).write_text(block.commands[0], encoding="utf-8")
            if block.not_run is None and block.recipe is None:
                for command in block.commands:
                    begun = time.monotonic()
                    self._one(page, block.kind, command)
                    print(f"{time.monotonic() - begun:6.1f} s  {page}: {command.splitlines()[0]}")
        self._stop(page)

    def _one(self, page: str, kind: str, command: str) -> None:
        for shown, actual in self.replaced.items():
            command = command.replace(shown, actual)
        if kind == "python":
            self._judge(page, command, self._shell(["python", "-"], command), {0})
            return
        line, _, comment = command.partition("  #")
        ready = next((text for pattern, text in STAYS.items() if re.search(pattern, line.strip())), None)
        if ready is not None and "--" not in re.sub(r"--(sandbox|host \S+)", "", line):
            self._stop(page)
            self._start(page, line.strip(), ready)
            return
        script = f"set -a; set -o pipefail; {line.strip()}\nended=$?; export -p > {self.folder}/exports; exit $ended"
        self._judge(page, line, self._shell(["bash", "-c", script], ""), {0, 3} if "exits 3" in comment else {0})

    def _shell(self, arguments: list[str], given: str) -> subprocess.CompletedProcess[str]:
        exports = self.folder / "exports"
        if not exports.exists():
            exports.write_text("")
        return subprocess.run(
            ["bash", "-c", f'. {exports}; exec "$@"', "-", *arguments], input=given, cwd=self.folder, text=True,
            env=self.environ, capture_output=True, check=False, timeout=COMMAND_SECONDS,
        )  # fmt: skip

    def _judge(self, page: str, command: str, done: subprocess.CompletedProcess[str], allowed: set[int]) -> None:
        if done.returncode not in allowed or "Traceback" in done.stderr:
            self.failures.append(f"{page}: {command.strip()}\n  exit {done.returncode}: {done.stderr[-1500:]}")

    def _start(self, page: str, line: str, ready: str) -> None:
        self.staying_line = line
        self.staying = subprocess.Popen(
            ["bash", "-c", f". {self.folder}/exports; exec {line}"], cwd=self.folder, env=self.environ, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        overdue = threading.Timer(COMMAND_SECONDS, self.staying.kill)
        overdue.start()
        assert self.staying.stderr
        said = []
        for text in self.staying.stderr:
            said.append(text)
            if ready in text:
                break
        else:
            self.failures.append(f"{page}: {line}\n  ended before it said {ready!r}: {''.join(said)[-1500:]}")
        overdue.cancel()

    def _stop(self, page: str) -> None:
        if self.staying is None:
            return
        os.killpg(self.staying.pid, signal.SIGINT)
        try:
            _, said = self.staying.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.staying.pid, signal.SIGKILL)
            _, said = self.staying.communicate()
        # Ended by SIGINT is 130 to a shell; make itself dies of it, once its child has ended well.
        well = {0, 130, -signal.SIGINT} if self.staying_line.startswith("make ") else {0, 130}
        if self.staying.returncode not in well:
            self.failures.append(f"{page}: {self.staying_line}\n  exit {self.staying.returncode}: {said[-1500:]}")
        self.staying = None


def as_url(conninfo: str) -> str:
    """The same connection as one word."""
    parts = conninfo_to_dict(conninfo)
    return f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}&port={parts['port']}"


@contextmanager
def session(home: Path, database_url: str) -> Iterator[Session]:
    """A shell in a folder like a fresh check-out, with databases that stay open from command to command."""
    folder = home / "market-data-platform"
    bin_folder = folder / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    for entry in ("Makefile", "pyproject.toml", "constraints.txt", "src", "tests", "docs"):
        (folder / entry).symlink_to(ROOT / entry)
    for name, module in {"python": "", "market-data": "-m market_data", "jupyter": "-m jupyter_core.command"}.items():
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (bin_folder / name).chmod(0o755)
    (bin_folder / "activate").write_text(f"PATH={bin_folder}:$PATH\n")
    for stamp in (".installed", ".installed-dev", ".installed-bench"):
        (folder / ".venv" / stamp).touch()
        # What is installed is what runs this test: newer than any file of the check-out.
        os.utime(folder / ".venv" / stamp, (2**32, 2**32))
    with socket.socket() as free, ExitStack() as stack:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        sandbox = Sandbox()
        sandbox.start()
        stack.callback(sandbox.stop)
        for data in ("market-data", "market-data-sandbox"):
            stack.enter_context(EmbeddedServer(home / ".local" / "share" / data, settings=FAST))
        settings = {**LITTLE, "API__PORT": str(port), "PROVIDERS__POLYGON__REQUESTS_PER_MINUTE": "6000",
                    "PROVIDERS__YAHOO__REQUESTS_PER_MINUTE": "6000", "PROVIDERS__POLYGON__API_KEY": "sandbox",
                    "PIPELINES__BACKFILL_REQUESTS_PER_MINUTE": "6000"}  # fmt: skip
        settings |= {key.upper().replace(".", "__"): str(value) for key, value in sandbox.urls.items()}
        environ = {"HOME": str(home), "PATH": f"{bin_folder}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
        environ |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        environ |= {f"MARKET_DATA__{key}": value for key, value in settings.items()}
        replaced = {"127.0.0.1:8000": f"127.0.0.1:{port}", SERVER: shlex.quote(as_url(database_url))}
        free.close()
        yield Session(folder, environ, replaced)


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param(IN_MAKE_TEST, id="start"),
        *[pytest.param((page,), id=page, marks=pytest.mark.prove) for page in PAGES if page not in IN_MAKE_TEST],
    ],
)
def test_every_command_shown_runs(pages: tuple[str, ...], data_home: Path, empty_database_url: str) -> None:
    if not any(block.not_run is None for page in pages for block in blocks((ROOT / page).read_text())):
        return
    with session(data_home, empty_database_url) as shell:
        for page in pages:
            shell.run(page)
    assert not shell.failures, "\n\n".join(shell.failures)


def test_what_is_not_run_is_counted() -> None:
    skipped = {page: [b for b in blocks((ROOT / page).read_text()) if b.not_run is not None] for page in PAGES}
    assert {page: len(found) for page, found in skipped.items() if found} == NOT_RUN
    assert all(block.not_run and len(block.not_run) > 10 for found in skipped.values() for block in found)


SHOWN = [
    (page, line[line.index("market-data") :])
    for page in PAGES
    for block in blocks((ROOT / page).read_text(encoding="utf-8"))
    if block.kind == "console"
    for line in block.commands
    if "market-data " in line
]


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=[f"{page}: {line[:60]}" for page, line in SHOWN])
def test_every_command_shown_is_understood(page: str, line: str) -> None:
    words = shlex.split(re.split(r"\s[|>]\s|\s#", line)[0])[1:]
    command, rest = typer.main.get_command(app), globals_first(words)
    context = command.make_context("market-data", rest)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
