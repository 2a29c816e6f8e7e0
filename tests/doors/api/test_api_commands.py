"""The commands of the API: serve, openapi, keys; as a person runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

PROGRAM = [sys.executable, "-m", "market_data"]


@pytest.fixture
def command(database_url: str) -> list[str]:
    """The program over a database of the test's own."""
    return [*PROGRAM, "--database-url", database_url]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ)


def test_keys_lock_the_server_and_are_shown_once(command: list[str]) -> None:
    made = run(*command, "keys", "create", "research", "--scope", "read", "--days", "30", "--json")
    assert made.returncode == 0, made.stderr
    token = json.loads(made.stdout)["key"]
    assert re.fullmatch(r"mdk_[0-9a-f]{32}_[A-Za-z0-9_-]{43}", token)
    again = run(*command, "keys", "create", "research")
    assert (again.returncode, "already" in again.stderr) == (2, True)
    listed = run(*command, "keys", "list", "--json")
    (key,) = json.loads(listed.stdout)
    assert (key["name"], key["scopes"], key["last_used_at"]) == ("research", ["read"], None)
    assert token not in listed.stdout + again.stderr
    serving = subprocess.Popen([*command, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True, env=os.environ)
    overdue = threading.Timer(120, serving.kill)
    overdue.start()
    try:
        assert serving.stderr is not None
        line = next(line for line in serving.stderr if "serving on" in line)
        address = re.search(r"http://\S+(?=;)", line)
        assert address
        key_header = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address[0], timeout=30) as client:
            assert client.get("/healthz").status_code == 200
            assert (client.get("/readyz").status_code, client.get("/readyz").content) == (200, b"")
            assert client.head("/api/v1/providers", headers=key_header).status_code == 200
            assert client.get("/readyz", headers=key_header).status_code == 200
            assert run(*command, "keys", "revoke", "research").returncode == 0
            assert client.get("/readyz", headers=key_header).status_code == 401
        serving.send_signal(signal.SIGTERM)
        rest = serving.stderr.read()
        assert serving.wait(60) == 0
        assert (token not in rest, "Traceback" not in rest) == (True, True)
    finally:
        overdue.cancel()
        serving.kill()
        serving.wait()
        serving.stderr and serving.stderr.close()
    assert json.loads(run(*command, "keys", "list", "--json").stdout)[0]["revoked_at"] is not None


def test_the_document_is_printed_without_a_database() -> None:
    done = run(*PROGRAM, "--database-url", "postgresql://nobody@127.0.0.1:1/none", "openapi")
    assert done.returncode == 0, done.stderr
    assert "/api/v1/enrichment/trigger" in json.loads(done.stdout)["paths"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--host", "0.0.0.0"], "keys create"),
        (["keys", "create", "x", "--scope", "everything"], "read, trigger, admin"),
        (["keys", "revoke", "nobody"], "keys list"),
    ],
)
def test_wrong_usage_says_what_to_do(command: list[str], arguments: list[str], words: str) -> None:
    done = run(*command, *arguments)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert words in done.stderr


def test_the_title_of_the_process_holds_no_password(database_url: str) -> None:
    url = f"{database_url} password=planted-database-secret"
    command = [*PROGRAM, "--database-url", url, "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as serving:
        overdue = threading.Timer(120, serving.kill)
        overdue.start()
        try:
            assert serving.stderr is not None
            next(line for line in serving.stderr if "serving on" in line)
            title = Path(f"/proc/{serving.pid}/cmdline").read_bytes()
        finally:
            overdue.cancel()
            serving.terminate()
            rest = serving.stderr.read() if serving.stderr else ""
    assert b"--database-url *** serve --port 0" in title
    assert b"planted-database-secret" not in title
    assert "planted-database-secret" not in rest
