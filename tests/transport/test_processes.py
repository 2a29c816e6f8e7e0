"""Several processes and one source, on real clocks: one limit for all of them, a ban none of them forgets."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ASKING = Path(__file__).with_name("asking.py")


class Source:
    """Counts when it is asked; from `ban_at` on, in seconds, it bans for `ban_for`."""

    def __init__(self, ban_at: float = 1e9, ban_for: int = 0) -> None:
        self.began = time.monotonic()
        self.asked: list[float] = []
        self.told: float | None = None
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                now = time.monotonic() - source.began
                source.asked.append(now)
                bans = source.told is None and now >= ban_at
                if bans:
                    source.told = now
                self.send_response(418 if bans else 200)
                if bans:
                    self.send_header("Retry-After", str(ban_for))
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its address."""
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{self.server.server_address[1]}/"
        self.server.shutdown()
        self.server.server_close()


def processes(many: int, *arguments: object) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, str(ASKING), *map(str, arguments)]) for _ in range(many)]


def most_within(moments: list[float], window: float) -> int:
    """The most requests that any window holds, by when they arrived."""
    moments = sorted(moments)
    return max(sum(first <= at < first + window for at in moments) for first in moments)


@pytest.mark.parametrize(
    ("per_window", "window", "seconds"),
    [(120, 60, 130), (1200, 60, 130)],
)
@pytest.mark.prove
def test_four_processes_keep_to_one_limit(database_url: str, per_window: int, window: int, seconds: int) -> None:
    source = Source()
    with source.serving() as url:
        for process in processes(4, database_url, url, seconds, per_window, window):
            assert process.wait(seconds + 60) == 0
    most, whole = most_within(source.asked, window), source.asked[-1] - source.asked[0]
    print(f"{len(source.asked)} requests in {whole:.1f} s, most in {window} s: {most} of {per_window}")
    assert most <= per_window
    # Nor is the limit left unused: two windows hold nearly twice as many.
    assert len(source.asked) >= per_window * (whole // window) * 0.85


@pytest.mark.prove
def test_none_of_three_processes_asks_within_a_ban(database_url: str) -> None:
    source = Source(ban_at=8, ban_for=20)
    with source.serving() as url:
        # Slowly, so that each asks for one request at a time, and learns of the ban with it.
        running = processes(3, database_url, url, 40, 10, 1)
        while source.told is None:
            time.sleep(0.05)
        # One that starts while the ban lasts does not ask either.
        running += processes(1, database_url, url, 25, 10, 1)
        for process in running:
            assert process.wait(120) == 0
    assert source.told is not None
    after = [at - source.told for at in source.asked if source.told < at < source.told + 20]
    print(f"told after {len(source.asked)} requests; within the ban, seconds after it was told: {after}")
    # What was under way; a second more than that nobody.
    assert not [at for at in after if at > 1]
    assert [at for at in source.asked if at > source.told + 20], "and then they go on"
