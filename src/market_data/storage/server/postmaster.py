"""What a running PostgreSQL says of itself in postmaster.pid, and why one that would not start did not."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from market_data.model.errors import DatabaseUnavailable, DiskFull, MarketDataError, MissingPrivilege

# Above the largest process id that Linux (2^22) and macOS (99998) give out.
IMPOSSIBLE_PID: Final = 2**22 + 7


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A live server process of a cluster."""

    pid: int
    port: int
    socket_dir: str
    ready: bool

    @classmethod
    def of(cls, cluster: Path) -> Postmaster | None:
        """The live server of that cluster folder, or None when there is none or its pid file is still being written."""
        lines = _pid_file_lines(cluster)
        if len(lines) < 5 or not lines[4]:
            return None
        pid = int(lines[0])
        if not cls.alive(pid) or not _is_server_of(pid, cluster):
            return None
        ready = len(lines) >= 8 and lines[7] == "ready"
        return cls(pid=pid, port=int(lines[3]), socket_dir=lines[4], ready=ready)

    @staticmethod
    def alive(pid: int) -> bool:
        """True while the process runs; one that ended but was not waited for counts as dead."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        try:
            # In a container we may be process 1 and thus the server's parent.
            return os.waitpid(pid, os.WNOHANG)[0] != pid
        except ChildProcessError:
            return _linux_state(pid) != "Z"

    @classmethod
    def disarm_stale_pid(cls, cluster: Path) -> None:
        """Make a pid file whose process number now belongs to another program harmless.

        PostgreSQL would take the other program for a server and refuse to start. The rest of the file stays: by it
        PostgreSQL finds children of the old server that still hold its shared memory. Call only while nobody else can
        start a server and `of` says that none runs.
        """
        lines = _pid_file_lines(cluster)
        if lines and lines[0].isdigit() and _exists(int(lines[0])):
            (cluster / "postmaster.pid").write_text("\n".join([str(IMPOSSIBLE_PID), *lines[1:]]) + "\n")

    @staticmethod
    def end_orphans(cluster: Path) -> None:
        """Tell children of a server that was killed to end at once, as the server would have done had it crashed.

        They see its death only when they wait for something; one in the middle of a long query would keep the shared
        memory, and with it the cluster, for hours. Where there is no /proc, we wait for them.
        """
        for entry in Path("/proc").glob("[0-9]*"):
            if _is_server_of(int(entry.name), cluster):
                with suppress(ProcessLookupError):
                    os.kill(int(entry.name), signal.SIGQUIT)


def explain_failed_start(message: str, log_file: Path) -> MarketDataError:
    """The error that says why the embedded server did not start, naming its log file."""
    where = f"The embedded database did not start; its messages are in {log_file}."
    lines = message.strip().splitlines()
    fatal = next((line for line in reversed(lines) if "FATAL" in line or "PANIC" in line), None)
    reason = fatal or "\n".join(lines[-3:])
    if "No space left on device" in message or "Disk quota exceeded" in message:
        return DiskFull(f"{where} No space is left on that disk: free some and try again. ({reason})")
    if "Permission denied" in message or "Operation not permitted" in message or "Read-only file system" in message:
        return MissingPrivilege(f"{where} Give this user write access or choose another data directory. ({reason})")
    return DatabaseUnavailable(f"{where} {reason}")


def _pid_file_lines(cluster: Path) -> list[str]:
    pid_file = cluster / "postmaster.pid"
    try:
        return [line.strip() for line in pid_file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()]
    except FileNotFoundError:
        return []


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _linux_state(pid: int) -> str | None:
    """The process state letter of /proc (Z: zombie), None where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _is_server_of(pid: int, cluster: Path) -> bool:
    """Whether that process works in the cluster's folder; assumed where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(cluster)
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return not Path("/proc/self/cwd").exists()
