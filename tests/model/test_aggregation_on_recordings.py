"""Candles made of recorded trades and of finer recorded candles equal those that others made, for coins and stocks."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from market_data.model.aggregation import aggregate, candles_of_trades
from market_data.model.dataset import CANDLES, TRADES
from market_data.model.instrument import AssetClass
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange

NEW_YORK = ZoneInfo("America/New_York")
VALUES = ("open", "high", "low", "close", "volume")
COLUMNS = ["timestamp", *VALUES]
DAY = timedelta(days=1)
LADDER = (Timeframe.M5, Timeframe.M15, Timeframe.M30, Timeframe.H1, Timeframe.H4, Timeframe.D1, Timeframe.W1)
CRYPTO, STOCK = AssetClass.CRYPTO, AssetClass.STOCK


def exact(recorded: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Floats as the decimals whose shortest text they are: the digits the exchange sent."""
    return recorded.with_columns(
        pl.Series(name, [repr(value) for value in recorded[name]], dtype=pl.String) for name in names
    )


@pytest.fixture(scope="module")
def xrp(recordings: Path) -> Path:
    return recordings / "freqtrade"


@pytest.mark.parametrize(("size", "expected"), [("1m", 2469), ("5m", 706)])
def test_trades_make_the_recorded_candles(xrp: Path, size: str, expected: int) -> None:
    told = exact(pl.read_ipc(xrp / "XRP_ETH-trades.feather"), "price", "amount")
    trades = TRADES.conform(
        told.select(
            timestamp=pl.from_epoch("timestamp", "ms").dt.replace_time_zone("UTC"),
            trade_id="id",
            price=pl.col("price").cast(TRADES.schema["price"]),
            size=pl.col("amount").cast(TRADES.schema["size"]),
            aggressor_side="side",
        )
    )
    recorded = CANDLES.conform(
        exact(pl.read_ipc(xrp / f"XRP_ETH-{size}.feather"), *VALUES).rename({"date": "timestamp"})
    )
    timeframe = Timeframe(size)
    span = TimeRange(recorded["timestamp"].min(), recorded["timestamp"].max() + timeframe.duration)
    made = candles_of_trades(trades, grid(CRYPTO, timeframe, span))
    assert recorded.height == expected
    assert made.select(COLUMNS).equals(recorded.select(COLUMNS))
    # What the recorded candles do not have, from the trades by hand.
    assert made["trade_count"].sum() == trades.height == 12_477
    bought = sum((row["size"] for row in trades.iter_rows(named=True) if row["aggressor_side"] == "buy"), Decimal(0))
    assert sum(made["taker_buy_volume"], Decimal(0)) == bought
    print(f"{trades.height} trades make {made.height} candles of {size}: 0 differ from the recorded ones")


def lean(folder: Path, name: str, zone: ZoneInfo | None, scale: int) -> pl.DataFrame:
    """A day of Lean's candles: milliseconds since midnight there, prices in ten-thousandths for stocks."""
    with zipfile.ZipFile(folder / name) as packed:
        rows = pl.read_csv(
            io.BytesIO(packed.read(packed.namelist()[0])), has_header=False, new_columns=["at", *VALUES],
            schema_overrides=[pl.Int64] + [pl.String] * 5,
        )  # fmt: skip
    date = datetime.strptime(Path(name).name[:8], "%Y%m%d").replace(tzinfo=zone or UTC)
    midnight = date.astimezone(UTC)
    prices = [
        pl.Series(
            name, [Decimal(text) / (1 if name == "volume" else scale) for text in rows[name]], CANDLES.schema[name]
        )
        for name in VALUES
    ]
    times = pl.Series("timestamp", [midnight + timedelta(milliseconds=at) for at in rows["at"]])
    return CANDLES.conform(pl.DataFrame([times.cast(CANDLES.schema["timestamp"]), *prices]))


def by_hand(parts: pl.DataFrame, opens: Callable[[datetime], datetime]) -> list[tuple[object, ...]]:
    """The same, one row at a time."""
    made: dict[datetime, list[Decimal]] = {}
    for moment, first, high, low, last, volume in parts.sort("timestamp").select(COLUMNS).iter_rows():
        key = opens(moment)
        if key not in made:
            made[key] = [first, high, low, last, volume]
        else:
            so_far = made[key]
            made[key] = [so_far[0], max(so_far[1], high), min(so_far[2], low), last, so_far[4] + volume]
    return [(key, *values) for key, values in made.items()]


def crypto_open(timeframe: Timeframe) -> Callable[[datetime], datetime]:
    # 1970-01-05 was a Monday.
    origin = datetime(1970, 1, 5, tzinfo=UTC)
    return lambda moment: origin + (moment - origin) // timeframe.duration * timeframe.duration


def stock_open(timeframe: Timeframe) -> Callable[[datetime], datetime]:
    def opens(moment: datetime) -> datetime:
        session = moment.astimezone(NEW_YORK).replace(hour=9, minute=30, second=0, microsecond=0)
        if timeframe is Timeframe.W1:
            return (session - DAY * session.weekday()).astimezone(UTC)
        if timeframe is Timeframe.D1:
            return session.astimezone(UTC)
        return session.astimezone(UTC) + (moment - session) // timeframe.duration * timeframe.duration

    return opens


def check_ladder(minutes: pl.DataFrame, asset_class: AssetClass, opens: Callable[[Timeframe], Callable]) -> None:
    begin, end = minutes["timestamp"].min(), minutes["timestamp"].max()
    step, counts = minutes, [f"1m {minutes.height}"]
    for timeframe in LADDER:
        candles = grid(asset_class, timeframe, TimeRange(begin - 7 * DAY, end + timedelta(minutes=1)))
        direct = aggregate(minutes, candles)
        assert direct.select(COLUMNS).rows() == by_hand(minutes, opens(timeframe)), timeframe
        # Through every size before it, too.
        step = aggregate(step, candles)
        assert step.equals(direct), timeframe
        counts.append(f"{timeframe} {direct.height}")
    print(f"{asset_class}: {', '.join(counts)}: 0 differ")


def test_minutes_of_coins_make_everything_up_to_weeks(recordings: Path) -> None:
    told = pl.read_ipc(recordings / "freqtrade" / "UNITTEST_BTC-1m.feather")
    binance = CANDLES.conform(exact(told, *VALUES).rename({"date": "timestamp"}))
    assert binance.height == 13_681
    check_ladder(binance, CRYPTO, crypto_open)
    folder = recordings / "lean" / "Data" / "crypto" / "coinbase" / "minute" / "btcusd"
    names = sorted(path.name for path in folder.glob("*_trade.zip"))
    coinbase = pl.concat([lean(folder, name, None, 1) for name in names])
    check_ladder(coinbase, CRYPTO, crypto_open)


def test_minutes_of_a_stock_make_everything_up_to_weeks(recordings: Path) -> None:
    folder = recordings / "lean" / "Data" / "equity" / "usa"
    minutes = pl.concat([lean(folder, f"minute/spy/{day}_trade.zip", NEW_YORK, 10_000) for day in (20131007, 20131008)])
    local = pl.col("timestamp").dt.convert_time_zone("America/New_York").dt.time()
    regular = minutes.filter(local.is_between(datetime.min.time().replace(9, 30), datetime.min.time().replace(15, 59)))
    assert regular.height == 2 * 390
    check_ladder(regular, STOCK, stock_open)
