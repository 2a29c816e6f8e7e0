"""Binance's public archive: zipped CSV files by day and month with their checksums (PROVIDERS §1.8)."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from market_data.sandbox.archive_tables import ArchiveTables
from market_data.sandbox.binance import FUTURES, SPOT
from market_data.sandbox.block import HOUR, SECOND
from market_data.sandbox.chunks import Chunks
from market_data.sandbox.marketplace import Marketplace

FILES_KEPT = 12
# A day's file appears the next morning; a month's after the first Monday of the next.
DAILY_DELAY = 8 * HOUR
MISSING = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>'
    "<Message>The specified key does not exist.</Message></Error>"
)
NAME = re.compile(
    r"(?P<market>spot|futures/um)/(?P<step>daily|monthly)/(?P<kind>klines|premiumIndexKlines|aggTrades|trades|metrics|fundingRate)"
    r"/(?P<symbol>[^/]+)/(?:(?P<interval>[^/]+)/)?(?P<stem>[^/]+)-(?P<date>\d{4}-\d{2}(?:-\d{2})?)\.zip"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of the archive: what it holds, of [start, end) in ms."""

    market: str
    kind: str
    symbol: str
    interval: str
    start: int
    end: int
    name: str


class ArchiveHouse:
    """The archive's routes over a marketplace."""

    def __init__(self, market: Marketplace) -> None:
        self._market = market
        self._files: Chunks[bytes] = Chunks(FILES_KEPT)
        self._tables = {"futures/um": ArchiveTables(market, FUTURES), "spot": ArchiveTables(market, SPOT)}

    def routes(self) -> list[Route]:
        """Every path answered."""
        return [Route("/data/{path:path}", self.file)]

    async def file(self, request: Request) -> Response:
        """A zip or its checksum, or the bucket's 404."""
        path = request.path_params["path"]
        bare = path.removesuffix(".CHECKSUM")
        wanted = self._wanted(bare)
        if wanted is None:
            return Response(MISSING, 404, media_type="application/xml")
        content = self._files.get(bare, lambda: self._zip(wanted))
        if bare == path:
            return Response(content, media_type="application/zip")
        digest = hashlib.sha256(content).hexdigest()
        return Response(f"{digest}  {bare.rpartition('/')[2]}\n", media_type="binary/octet-stream")

    def _wanted(self, path: str) -> Wanted | None:
        """What a path names; None when there is no such file, or not yet."""
        found = NAME.fullmatch(path)
        if not found or len(found["date"]) != (10 if found["step"] == "daily" else 7):
            return None
        table = self._tables[found["market"]]
        label = found["interval"] or found["kind"]
        monthly = found["step"] == "monthly"
        try:
            first = date.fromisoformat(found["date"] + ("-01" if monthly else ""))
        except ValueError:
            return None
        after = (first + timedelta(days=31)).replace(day=1) if monthly else first + timedelta(days=1)
        if (
            found["stem"] != f"{found['symbol']}-{label}"
            or not table.serves(found["kind"], found["symbol"], found["interval"], monthly=monthly)
            or self._market.now() < _published(after, monthly=monthly)
            or _midnight(after) <= table.listed_at(found["symbol"])
        ):
            return None
        return Wanted(found["market"], found["kind"], found["symbol"], found["interval"] or "", _midnight(first),
                      _midnight(after), path.rpartition("/")[2])  # fmt: skip

    def _zip(self, wanted: Wanted) -> bytes:
        table = self._tables[wanted.market]
        content = table.text(wanted.kind, wanted.symbol, wanted.interval, wanted.start, wanted.end)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            # A fixed moment keeps the file, and so its checksum, the same for ever.
            entry = zipfile.ZipInfo(wanted.name.replace(".zip", ".csv"), (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, content, compresslevel=1)
        return buffer.getvalue()


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND


def _published(after: date, *, monthly: bool) -> int:
    """The moment from which a file is there, given the first day it does not cover."""
    if monthly:
        after += timedelta(days=(7 - after.weekday()) % 7 + 1)
    return _midnight(after) + DAILY_DELAY
