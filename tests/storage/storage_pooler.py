"""A connection pooler as small as can be: what PgBouncer does between a client and PostgreSQL, in either mode."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PROTOCOL = 196608
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


class Backend:
    """A session of the server, logged in without a password."""

    def __init__(self, path: str, user: str, database: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        body = struct.pack("!i", PROTOCOL) + f"user\0{user}\0database\0{database}\0\0".encode()
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        self.greeting = b""
        while (message := read_message(self.socket))[:1] != b"Z":
            # Everything but the number of the process: the client gets one of the pooler's.
            self.greeting += message if message[:1] != b"K" else b""


class Pooler:
    """Hands out sessions of the server; `shared`: anew for each transaction, the one used last first."""

    def __init__(self, path: str, user: str, database: str, *, shared: bool) -> None:
        self._where, self._shared = (path, user, database), shared
        self._idle: list[Backend] = []
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = [self._listening]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """End every connection."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _take(self) -> Backend:
        with self._lock:
            if not self._idle:
                self._idle.append(Backend(*self._where))
                self._open.append(self._idle[-1].socket)
            return self._idle.pop()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError):
            while struct.unpack("!i", start_message(client)[:4])[0] in (SSL_REQUEST, GSS_REQUEST):
                client.sendall(b"N")
            backend = self._take()
            client.sendall(backend.greeting + b"K" + struct.pack("!iii", 12, -7, 42) + b"Z\0\0\0\5I")
            self._idle += [backend] if self._shared else []
            self._converse(client, None if self._shared else backend)

    def _converse(self, client: socket.socket, backend: Backend | None) -> None:
        while (message := read_message(client))[:1] != b"X":
            backend = backend or self._take()
            backend.socket.sendall(message)
            # A query, or the end of several messages: answered up to whether a transaction is open.
            if message[:1] not in (b"Q", b"S"):
                continue
            while True:
                answer = read_message(backend.socket)
                if answer == b"Z\0\0\0\5I" and self._shared:
                    self._idle.append(backend)
                    backend = None
                client.sendall(answer)
                if answer[:1] == b"Z":
                    break


def read_exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def read_message(connection: socket.socket) -> bytes:
    head = read_exactly(connection, 5)
    return head + read_exactly(connection, struct.unpack("!i", head[1:])[0] - 4)


def start_message(connection: socket.socket) -> bytes:
    return read_exactly(connection, struct.unpack("!i", read_exactly(connection, 4))[0] - 4)


@contextmanager
def pooled(path: str, user: str, database: str, *, shared: bool) -> Iterator[int]:
    """A pooler while the block runs; yields its port."""
    pooler = Pooler(path, user, database, shared=shared)
    try:
        yield pooler.port
    finally:
        pooler.close()
