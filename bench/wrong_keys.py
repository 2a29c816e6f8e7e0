"""Somebody who tries keys: well formed, each another, at a steady pace; ends when told. See `bench.api`."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx

CONNECTIONS = 4


def main(api: str, a_minute: float, seconds: float) -> None:
    """Prints a line when it begins, and how many keys were refused when it ends."""
    begin = threading.Barrier(CONNECTIONS + 1)
    with ThreadPoolExecutor(CONNECTIONS) as workers:
        tries = [workers.submit(_try, api, CONNECTIONS * 60 / a_minute, seconds, begin) for _ in range(CONNECTIONS)]
        begin.wait()
        print("begun", flush=True)
        print(sum(each.result() for each in tries), flush=True)


def _try(api: str, pause: float, seconds: float, begin: threading.Barrier) -> int:
    refused = 0
    with httpx.Client() as client:
        begin.wait()
        began = time.perf_counter()
        while (due := began + refused * pause) < began + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            token = f"mdk_{uuid4().hex}_{secrets.token_urlsafe(32)}"
            answer = client.get(f"{api}/api/v1/enrichment/status/BTC", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == httpx.codes.UNAUTHORIZED, answer.status_code
            refused += 1
    return refused


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
