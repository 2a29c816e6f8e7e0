"""Binance's public archive: which file holds what, the file proved by its checksum, its rows."""

from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from market_data.model.errors import MalformedPayload, MarketDataError
from market_data.model.rows import Rows
from market_data.model.timeframe import TimeRange
from market_data.providers.binance.client import Client
from market_data.transport.columns import Count, Field, Written, moments_of, type_of, typed
from market_data.transport.payload import has_fine_numbers
from market_data.transport.rows import read_values
from market_data.transport.senders import Response

# Monthly files appear after the first Monday of the next month, daily ones in the morning of the next day.
MONTH_READY_AFTER = timedelta(days=8)
DAY_READY_AFTER = timedelta(hours=12)
# Fewer days of a month than this are fetched as days.
FEWEST_DAYS_OF_A_MONTH = 4
DAY = timedelta(days=1)
DOWNLOADS = 2
# Spot files count microseconds since 2025-01-01 (github.com/binance/binance-public-data, issue 386), others
# milliseconds: each count tells its unit by its size.
MOMENT: Final = Count()
ROWS_PER_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Piece:
    """A day or a month of a range: what of it is wanted, and whether it is the month's file."""

    span: TimeRange
    day: datetime
    monthly: bool

    @property
    def label(self) -> str:
        """How the file's name ends."""
        return f"{self.day:%Y-%m}" if self.monthly else f"{self.day:%Y-%m-%d}"

    @property
    def period(self) -> str:
        """The folder of its kind."""
        return "monthly" if self.monthly else "daily"

    def days(self) -> Iterator[Piece]:
        """Its days, each as a file of its own."""
        day = self.span.start.replace(hour=0, minute=0, second=0, microsecond=0)
        while day < self.span.end:
            yield Piece(TimeRange(max(day, self.span.start), min(day + DAY, self.span.end)), day, monthly=False)
            day += DAY


@dataclass(slots=True)
class Unread:
    """Files that could not be read; each costs itself, and is told once the others are handed on."""

    failures: list[tuple[Piece, MarketDataError]] = field(default_factory=list)

    def note(self, piece: Piece, error: MarketDataError) -> None:
        """Keep an error that concerns this file alone; raise any other."""
        if not error.contained:
            raise error
        self.failures.append((piece, error))

    def __contains__(self, piece: Piece) -> bool:
        return any(failure[0] == piece for failure in self.failures)

    def forget(self, piece: Piece) -> None:
        """The same is had elsewhere."""
        self.failures = [failure for failure in self.failures if failure[0] != piece]

    def tell(self) -> None:
        """Say which they were.

        Raises:
            MalformedPayload: when there were any.
        """
        if self.failures:
            days = ", ".join(piece.label for piece, _ in sorted(self.failures, key=lambda one: one[0].day))
            raise MalformedPayload(f"the archive's files of {days} cannot be read: {self.failures[0][1]}")


def pieces(span: TimeRange, now: datetime, *, monthly: bool = True) -> list[Piece]:
    """The files that hold `span`, oldest first, as far as they should be there at `now`."""
    found: list[Piece] = []
    month = span.start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while month < span.end:
        following = (month + timedelta(days=32)).replace(day=1)
        piece = Piece(TimeRange(max(month, span.start), min(following, span.end)), month, monthly=True)
        whole = piece.span.end - piece.span.start >= FEWEST_DAYS_OF_A_MONTH * DAY
        if monthly and whole and following + MONTH_READY_AFTER <= now:
            found.append(piece)
        else:
            found += [day for day in piece.days() if day.day + DAY + DAY_READY_AFTER <= now]
        month = following
    return found


async def download(client: Client, path: str) -> tuple[bytes, Response] | None:
    """The unpacked only member of a zip file and the answer it came in; None when it is not there (yet).

    Raises:
        MalformedPayload: when it does not have the checksum published beside it, twice, or is no such zip.
    """
    for attempt in range(DOWNLOADS):
        checksum = await client.get_file(f"{path}.CHECKSUM")
        answer = await client.get_file(path) if checksum is not None else None
        if checksum is None or answer is None:
            return None
        # Hashing and unpacking take long enough to hold up other tasks.
        expected = checksum.body[:64].decode("ascii", "replace").lower()
        if await asyncio.to_thread(_sha256, answer.body) == expected:
            return await asyncio.to_thread(_unpack, answer.body, client.settings.max_response_bytes), answer
        # A file may be replaced between the two requests.
        if attempt + 1 == DOWNLOADS:
            raise MalformedPayload(f"{path} does not have its published checksum {expected}")
    raise AssertionError("unreachable")


def read_lines(csv: bytes, fields: Mapping[str, Field], time: str, *, optional: Sequence[str] = ()) -> Rows:
    """Rows of a file by position, with or without a header; extra columns are ignored.

    Args:
        csv: the file.
        fields: its columns in order.
        time: the one that dates a rejected row.
        optional: those that may be empty.

    Raises:
        MalformedPayload: when not one line is a row, or the header names one of the fields in another place or none
            of them at all.
    """
    header = bool(csv.strip()) and not csv[:1].isdigit()
    first = csv[: csv.find(b"\n") + 1 or len(csv)]
    if header:
        _check_header(first.decode("utf-8", "replace").strip().split(","), list(fields))
    needed = [name for name in fields if name not in optional]
    rows = _read_at_once(csv, fields, header=header, places=max(first.count(b",") + 1, len(fields)))
    if rows is not None and not any(rows.select(needed).null_count().row(0)):
        return Rows(rows)
    sent = [line for line in csv.decode("utf-8", "replace").splitlines()[header:] if line.strip()]
    named = [dict(zip(fields, (cell or None for cell in line.split(",")), strict=False)) for line in sent]
    return read_values(named, sent, fields, needed, time)


def _read_at_once(csv: bytes, fields: Mapping[str, Field], *, header: bool, places: int) -> pl.DataFrame | None:
    """The rows when every cell is as it should be; None for any deviation."""
    if has_fine_numbers(csv):
        return None
    types = {name: _as_read(kind) for name, kind in fields.items()}
    extra = {f"extra_{number}": pl.String() for number in range(places - len(fields))}
    try:
        rows = pl.read_csv(
            csv,
            has_header=False,
            skip_rows=1 if header else 0,
            schema={**types, **extra},
            quote_char=None,
            columns=list(range(len(fields))),
        )
    except pl.exceptions.PolarsError:
        return None
    moments = [_moments(rows[name], kind) for name, kind in fields.items() if isinstance(kind, Count | Written)]
    return None if any(moment.null_count() for moment in moments) else rows.with_columns(moments)


def _as_read(kind: Field) -> pl.DataType:
    return pl.Int64() if isinstance(kind, Count) else pl.String() if isinstance(kind, Written) else type_of(kind)


def _moments(told: pl.Series, kind: Count | Written) -> pl.Series:
    return moments_of(told, kind) if isinstance(kind, Count) else typed(told, kind)[0]


def _check_header(header: list[str], fields: list[str]) -> None:
    # Some columns have had several names; those that we know must stand where they always did.
    if not set(header) & set(fields):
        raise MalformedPayload(f"a file of the archive has a header without any known column: {','.join(header)[:200]}")
    for place, name in enumerate(header):
        if name in fields and fields.index(name) != place:
            raise MalformedPayload(
                f"a file of the archive has {name!r} as column {place + 1}: {','.join(header)[:200]}"
            )


def blocks(csv: bytes) -> Iterator[bytes]:
    """The file in runs of whole lines, so that no frame of it fills the memory."""
    start = 0
    while start < len(csv):
        end = csv.find(b"\n", start + ROWS_PER_BLOCK_BYTES)
        end = len(csv) if end < 0 else end + 1
        yield csv[start:end]
        start = end


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _unpack(body: bytes, max_bytes: int) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            (member,) = archive.infolist()
            if member.file_size > max_bytes:
                raise MalformedPayload(f"{member.filename} unpacks to more than the {max_bytes} bytes allowed")
            with archive.open(member) as stream:
                # The size in the header may lie.
                content = stream.read(max_bytes + 1)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise MalformedPayload(f"not a zip of one file: {error}") from None
    if len(content) > max_bytes:
        raise MalformedPayload(f"{member.filename} unpacks to more than the {max_bytes} bytes allowed")
    return content
