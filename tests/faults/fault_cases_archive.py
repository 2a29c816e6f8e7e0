"""What Binance's archive can do wrong; what it does not give right comes from REST instead."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import fault_acts as acts
import httpx
from fault_desk import ARCHIVE_MINUTES, BINANCE, DAY, SUMMER, Case
from fault_wire import Act, Fault

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
MINUTES = 1440
USE = {"providers.binance.archive_from_candles": 1000}
REPLACED = {"binance:archive": 2 * MINUTES, "binance": MINUTES}
WHOLE = {"binance:archive": 3 * MINUTES}
REFUSED = "archive_checksum_failed"


def path(day: datetime) -> str:
    return f"futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-{day:%Y-%m-%d}.zip"


MIDDLE = SUMMER + DAY
MIDDLE_FILE = f"/data/{path(MIDDLE)}"


def rows_of(day: datetime) -> list[list[Any]]:
    first = int(day.timestamp())
    return [BINANCE.kline(first + 60 * number, 60) for number in range(MINUTES)]


def text(rows: list[list[Any]], header: str = HEADER) -> bytes:
    return (header + "".join(",".join(map(str, row)) + "\n" for row in rows)).encode()


def files(content: bytes | None) -> Mapping[str, bytes]:
    """Three days; the middle one with other content, if any."""
    days = [SUMMER + number * DAY for number in range(3)]
    return {path(day): content if content and day == MIDDLE else honest(day) for day in days}


@cache
def honest(day: datetime) -> bytes:
    """A day's file as it should be."""
    return text(rows_of(day))


def on_file(act: Act, times: int | None = None) -> Fault:
    return Fault(lambda request: request.url.path == MIDDLE_FILE, act, times)


def on_checksum(act: Act, times: int | None = None) -> Fault:
    return Fault(lambda request: request.url.path == f"{MIDDLE_FILE}.CHECKSUM", act, times)


def case(name: str, *faults: Fault, stored: Mapping[str, int], content: bytes | None = None, **more: Any) -> Case:
    return Case(
        name=f"archive: {name}",
        subject=ARCHIVE_MINUTES,
        faults=faults,
        stored=stored,
        files=files(content),
        settings=USE | more.pop("settings", {}),
        **more,
    )


def packed(content: bytes, *names: str) -> bytes:
    """A zip of members that hold the same."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return buffer.getvalue()


def proved(content: bytes) -> tuple[Fault, Fault]:
    """Another file, with a checksum that is right."""
    digest = hashlib.sha256(content).hexdigest()
    line = f"{digest}  a.zip\n".encode()
    return on_file(acts.answering(200, content)), on_checksum(acts.answering(200, line))


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def doubled(request: httpx.Request, honest: httpx.Response) -> httpx.Response:
    return httpx.Response(200, content=honest.content.replace(b"a", b"b").replace(b"0", b"1"))


MICROS = [[row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]] for row in rows_of(MIDDLE)]
FOREIGN = HEADER.replace("open,high,low,close", "close,high,low,open")
SHUFFLED = [[row[0], row[4], row[2], row[3], row[1], *row[5:]] for row in rows_of(MIDDLE)]
HOURLY = [BINANCE.kline(int(MIDDLE.timestamp()) + 3600 * number, 3600) for number in range(24)]
NEXT_DAY = rows_of(MIDDLE + DAY)[:10]
BAD_ROW = [*rows_of(MIDDLE)[:10], rows_of(MIDDLE)[10][:5], *rows_of(MIDDLE)[11:]]
NEGATIVE = [[*row[:3], "-1", *row[4:]] if number == 7 else row for number, row in enumerate(rows_of(MIDDLE))]
ZEROS = b"0" * 10**7

CASES = [
    case("nothing wrong", stored=WHOLE),
    case("a file whose bytes changed, always", on_file(acts.body(flipped)), stored=REPLACED, note=REFUSED),
    case("a file whose bytes changed, once", on_file(acts.body(flipped), 1), stored=WHOLE),
    case("a checksum of another file", on_checksum(doubled), stored=REPLACED, note=REFUSED),
    case("a checksum of another file, once", on_checksum(doubled, 1), stored=WHOLE),
    case("a checksum that is HTML", on_checksum(acts.answering(200, acts.HTML)), stored=REPLACED, note=REFUSED),
    case("a file cut short under its length", on_file(acts.body(lambda zipped: zipped[:-50])), stored=REPLACED,
         note=REFUSED),
    case("no such file", on_file(acts.answering(404)), on_checksum(acts.answering(404)), stored=REPLACED),
    case("a file without its checksum", on_checksum(acts.answering(404)), stored=REPLACED),
    case("500 for a file, once", on_file(acts.answering(500), 1), stored=WHOLE, waited=2),
    case("500 for a file, always", on_file(acts.answering(500)), stored={"binance:archive": MINUTES},
         outcome="ProviderUnavailable"),
    case("the right checksum of what is no zip", *proved(b"hello"), stored=REPLACED, note=REFUSED),
    case("two files in the zip", *proved(packed(text(rows_of(MIDDLE)), "a.csv", "b.csv")), stored=REPLACED,
         note=REFUSED),
    case("a zip bomb", *proved(packed(ZEROS, "a.csv")), stored=REPLACED, note=REFUSED,
         settings={"providers.binance.max_response_bytes": 10**6}),
    case("no header", stored=WHOLE, content=text(rows_of(MIDDLE), "")),
    case("times in microseconds", stored=WHOLE, content=text(MICROS)),
    case("columns in another order under their header", stored=REPLACED, content=text(SHUFFLED, FOREIGN), note=REFUSED),
    case("more columns than promised", stored=WHOLE,
         content=text([[*row, "new"] for row in rows_of(MIDDLE)], HEADER.replace("\n", ",new\n"))),
    case("candles of another interval", stored=REPLACED, content=text(HOURLY), note=REFUSED),
    case("a row cut short", stored=REPLACED, content=text(BAD_ROW), note=REFUSED),
    case("rows of the next day too", stored=WHOLE, content=text([*rows_of(MIDDLE), *NEXT_DAY])),
    case("rows in the wrong order", stored=WHOLE, content=text(rows_of(MIDDLE)[::-1])),
    case("a row with a negative price", stored={"binance:archive": 3 * MINUTES - 1}, content=text(NEGATIVE), missing=1,
         rejected=1),
]  # fmt: skip
