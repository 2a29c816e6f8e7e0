"""What surrounds the program: closed, full and narrow outputs, signals, odd folders, users and flags of Python."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from market_data.cli.output import print_rows
from market_data.cli.streams import printable
from market_data.model.errors import MissingPrivilege
from market_data.storage.server import account, tuning
from market_data.storage.server.account import ServerAccount, socket_folder
from market_data.storage.server.database import Database
from market_data.storage.server.embedded import EmbeddedServer
from market_data.storage.server.postmaster import Postmaster

PROGRAM = [sys.executable, "-m", "market_data"]


def run(*arguments: str, shell: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """The program with redirections of a shell after it."""
    command = ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environ, timeout=60)


def test_a_full_disk_behind_the_output_is_told() -> None:
    done = run("providers", "--help", shell=">/dev/full")
    assert (done.returncode, done.stderr) == (1, "error: cannot be written: No space left on device\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_outputs_end_nothing(closed: str) -> None:
    done = run("db", "sql", "--after", "0005", shell=closed)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert ("CREATE" in done.stdout) == (">&-" not in closed.removeprefix("2>&-"))


def test_ascii_alone_writes_other_letters_out(database_url: str) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "NO_COLOR": "1"}
    with Database.open(database_url, None) as database:
        database.rows("INSERT INTO tracked_symbols (symbol, asset_class, timeframes) VALUES ('币安', 'crypto', '{1d}')")
    shown = run("--database-url", database_url, "jobs", **ascii_only)
    assert (shown.returncode, shown.stdout.isascii(), shown.stderr.isascii()) == (0, True, True)
    printed = run("--database-url", database_url, "keys", "create", "schlüssel", "--json", **ascii_only)
    assert printed.returncode in (0, 2)
    assert "unexpected" not in printed.stderr


def test_python_without_docstrings_and_assertions_knows_every_feature() -> None:
    script = (
        "from market_data.bootstrap.shelves import open_shelves; s = open_shelves();"
        "print(sorted((f.name, f.version, bool(f.sections['Formula'])) for f in s.features));"
        "print(sorted(r.doc for r in s.rules))"
    )
    plain, bare = (
        subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=False)
        for flags in ((), ("-OO",))
    )
    assert bare.stderr == ""
    assert bare.stdout == plain.stdout != ""


def test_names_in_brackets_and_escapes_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(None, [{"source": "[ccxt]", "note": "a [/x] b", "sent": "x\x1b]0;title\x07\x9b31m\u202ey"}])
    out = capsys.readouterr().out
    assert "[ccxt]" in out
    assert "a [/x] b" in out
    assert r"x\x1b]0;title\x07\x9b31m\u202ey" in out
    assert len(printable("x" * 20_000_000)) < 5_000


@pytest.mark.parametrize("name", ["a, b", "a b", "it's", "ends ", 'quo"te'])
def test_folders_of_any_name(module_home: Path, name: str) -> None:
    with Database.open(None, module_home / name, server_settings={"fsync": "off"}) as database:
        assert database.rows("SELECT 1 AS n") == [{"n": 1}]
        assert database.server is not None
        assert "," not in str(socket_folder(database.server.home))


def test_little_shared_memory_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dynamic_shared_memory_type" not in tuning.default_settings()
    monkeypatch.setattr(tuning, "LEAST_SHARED_BYTES", 2**62)
    assert tuning.default_settings()["dynamic_shared_memory_type"] == "mmap"


def test_a_user_without_a_name_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account.os, "geteuid", lambda: 987_654)
    monkeypatch.setattr(ServerAccount, "open_way_to", lambda *_: None)
    with pytest.raises(MissingPrivilege, match="987654 has no entry in /etc/passwd, .* or set DATABASE_URL"):
        EmbeddedServer(tmp_path / "data").acquire()


@contextmanager
def up(folder: Path, *more: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The platform in the sandbox on a data folder, and where it serves."""
    command = [*PROGRAM, "--sandbox", "--data-dir", str(folder), "up", "--port", "0", *more]
    environ = {"MARKET_DATA__INSTRUMENTS__TRACKED": "{}", **environ}
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ | environ
    )
    overdue = threading.Timer(100, running.kill)
    overdue.start()
    try:
        assert running.stderr is not None
        found = next(found for line in running.stderr if (found := re.search(r"http://[\d.:]+", line)))
        yield running, found[0]
    finally:
        overdue.cancel()
        if running.poll() is None:
            running.kill()
        running.wait()
        assert running.stderr is not None
        running.stderr.close()


def test_a_second_up_says_where_the_first_is_and_a_closed_terminal_drains(module_home: Path) -> None:
    folder = module_home / "twice"
    with up(folder) as (first, address):
        told = run("--sandbox", "--data-dir", str(folder), "up", "--port", "0")
        assert told.returncode == 1
        last = told.stderr.splitlines()[-1]
        assert f"up on this data already ({address}, process {first.pid} on " in last
        first.send_signal(signal.SIGHUP)
        assert first.stderr is not None
        assert "stopped; nothing was left" in first.stderr.read()
        assert first.wait(60) == 0
    assert Postmaster.of(folder.with_name("twice-sandbox") / "postgres" / "cluster") is None


def test_every_line_of_json_logs_is_json(module_home: Path) -> None:
    environ = {
        "MARKET_DATA__MONITORING__LOG_FORMAT": "json",
        "LOG_LEVEL": "INFO",
        "PROMETHEUS_PORT": "tcp://10.0.0.1:9",
    }
    command = [*PROGRAM, "--sandbox", "--data-dir", str(module_home / "lines"), "up", "--port", "0"]
    only = {"MARKET_DATA__INSTRUMENTS__TRACKED": "{}", "PYTHONWARNINGS": "default"}
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environ | only
    )
    overdue = threading.Timer(100, running.kill)
    overdue.start()
    assert running.stderr is not None
    lines: list[str] = []
    for line in running.stderr:
        lines.append(line)
        if "up to date" in line:
            running.send_signal(signal.SIGTERM)
    assert running.stdout is not None
    lines += running.stdout.readlines()
    overdue.cancel()
    assert running.wait(60) == 0
    running.stdout.close()
    running.stderr.close()
    entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert all({"event", "level", "timestamp"} <= entry.keys() for entry in entries)
    assert any("Kubernetes sets it for a Service" in entry["event"] for entry in entries)


def test_a_terminal_that_closes_ends_a_command_in_good_order(module_home: Path) -> None:
    folder = module_home / "short"
    main, terminal = pty.openpty()
    waiting = subprocess.Popen(
        [*PROGRAM, "--data-dir", str(folder), "scheduler"], stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    try:
        heard = b""
        while b"next: " not in heard:
            heard += os.read(main, 4096)
        os.close(main)  # nobody reads any more, and writing fails
        waiting.send_signal(signal.SIGHUP)
        assert waiting.wait(60) == 0
    finally:
        waiting.kill()
    assert Postmaster.of(folder / "postgres" / "cluster") is None
