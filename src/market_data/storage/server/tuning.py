"""The embedded server's own settings, for the machine it runs on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Final

SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  # looked at only
LEAST_SHARED_BYTES: Final = 32 * 1024 * 1024

# For a laptop with two cores. No parallel plans: they need /dev/shm, of which containers have 64 MB.
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "''",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "'256MB'",
    "effective_cache_size": "'1GB'",
    "work_mem": "'32MB'",
    "maintenance_work_mem": "'128MB'",
    "min_wal_size": "'256MB'",
    "max_wal_size": "'2GB'",
    "checkpoint_timeout": "'15min'",
    "random_page_cost": "1.1",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_checkpoints": "off",
    "max_locks_per_transaction": "256",
}


def default_settings() -> dict[str, str]:
    """The settings, with shared memory in files of the data folder where /dev/shm has no room for it."""
    return {**SETTINGS, **({} if _shared_memory_fits() else {"dynamic_shared_memory_type": "mmap"})}


def _shared_memory_fits() -> bool:
    """Whether /dev/shm has room for what PostgreSQL counts; containers may have as little as they like."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).total >= LEAST_SHARED_BYTES
    except OSError:
        # Systems without it have another kind.
        return sys.platform != "linux"
