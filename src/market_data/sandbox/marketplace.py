"""Every history the sandbox serves, behind one seed and one clock, and an account of what is real in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from market_data.sandbox.block import DAY, SECOND, Block
from market_data.sandbox.chunks import Chunks
from market_data.sandbox.coins import CoinHistory
from market_data.sandbox.stocks import StockHistory
from market_data.sandbox.symbols import COINS, STOCKS
from market_data.sandbox.text import Rows

DEFAULT_SEED = 7
# Some 200 MB at most: a chunk of minutes is about 1 MB, its text 1.4 MB.
CHUNKS_KEPT = 96
COIN_EXTRAS = "trades, funding, open interest, ratios, liquidations"
STOCK_EXTRAS = "trades, quotes, earnings, news, options"
# Sessions are laid out this far past the clock, again and again as it advances.
AHEAD = 40 * DAY


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is recorded and what is modelled of one symbol; ``recorded`` is None when nothing is."""

    symbol: str
    asset_class: str
    recorded: str | None
    modelled: str

    def __str__(self) -> str:
        return f"{self.symbol} ({self.asset_class}): recorded {self.recorded or 'nothing'}; modelled {self.modelled}"


class Marketplace:
    """All coins and stocks; histories are made when first asked for.

    Args:
        seed: of the model; the same seed gives the same history for ever.
        clock: the present, an aware datetime; the real one when None.
    """

    def __init__(self, seed: int = DEFAULT_SEED, clock: Callable[[], datetime] | None = None) -> None:
        self.seed = seed
        self._clock = clock or (lambda: datetime.now(UTC))
        self._chunks: Chunks[Block] = Chunks(CHUNKS_KEPT)
        self.texts: Chunks[Rows] = Chunks(CHUNKS_KEPT)
        self.coins = {coin.symbol: coin for coin in COINS}
        self.stocks = {stock.symbol: stock for stock in STOCKS}
        self._coin_histories: dict[str, CoinHistory] = {}
        self._stock_histories: dict[str, StockHistory] = {}

    def now(self) -> int:
        """The present, ms since 1970 UTC."""
        return int(self._clock().timestamp() * 1000)

    def coin(self, symbol: str) -> CoinHistory:
        """The history of a listed coin."""
        if symbol not in self._coin_histories:
            self._coin_histories[symbol] = CoinHistory(self.coins[symbol], self.seed, self._chunks)
        return self._coin_histories[symbol]

    def stock(self, symbol: str) -> StockHistory:
        """The history of a listed stock, with sessions past the present."""
        history = self._stock_histories.get(symbol)
        if history is None or history.opens[-1] < self.now() + AHEAD // 4:
            history = StockHistory(self.stocks[symbol], self.seed, self._chunks, self.now() + AHEAD)
            self._stock_histories[symbol] = history
        return history

    def explain(self) -> list[Provenance]:
        """What is recorded and what is modelled, per symbol."""
        return [self._explain_coin(symbol) for symbol in self.coins] + [self._explain_stock(s) for s in self.stocks]

    def _explain_coin(self, symbol: str) -> Provenance:
        history = self.coin(symbol)
        if not history.coin.recorded:
            return Provenance(symbol, "crypto", None, f"everything since {_day(history.start)}, {COIN_EXTRAS}")
        recorded = f"hours {_hour(history.start)} to {_hour(history.modelled_from - 1)} UTC"
        since = _hour(history.modelled_from)
        modelled = f"taker volumes, trade counts and minutes within them; everything since {since}; {COIN_EXTRAS}"
        return Provenance(symbol, "crypto", recorded, modelled)

    def _explain_stock(self, symbol: str) -> Provenance:
        history = self.stock(symbol)
        kind = "etf" if history.stock.etf else "stock"
        if not history.recorded_sessions:
            return Provenance(symbol, kind, None, f"everything since {_day(history.start)}, {STOCK_EXTRAS}")
        first, last = history.opens[0], history.opens[history.recorded_sessions - 1]
        dividends = sum(fact.recorded for fact in history.dividends)
        splits = sum(fact.recorded for fact in history.splits)
        recorded = f"days {_day(first)} to {_day(last)}, {dividends} dividends, {splits} splits"
        modelled = "minutes within them, extended hours, trade counts; everything after, a dividend each quarter"
        modelled += f"; {STOCK_EXTRAS}"
        return Provenance(symbol, kind, recorded, modelled)


def fixed_clock(moment: datetime) -> Callable[[], datetime]:
    """A clock that stands still."""
    return lambda: moment


def running_clock(moment: datetime, speed: float = 1.0) -> Callable[[], datetime]:
    """A clock that reads ``moment`` now and runs on, ``speed`` times as fast as the real one."""
    begun = time.monotonic()
    return lambda: moment + timedelta(seconds=(time.monotonic() - begun) * speed)


def _hour(time: int) -> str:
    return datetime.fromtimestamp(int(time) // SECOND, UTC).strftime("%Y-%m-%d %H:%M")


def _day(time: int) -> str:
    return datetime.fromtimestamp(int(time) // SECOND, UTC).strftime("%Y-%m-%d")
