"""What a connection is: rows come as tuples, everything else is set where it is opened."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]
