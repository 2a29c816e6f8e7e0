"""What the sandbox lists: every symbol, its names at the three sources, its decimals and how its model behaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """A cryptocurrency quoted in dollars.

    ``price_decimals`` and ``volume_decimals`` fix the tick; ``listed`` is the first modelled or recorded day;
    ``start`` and ``level`` the model's first price and the one it returns to; ``deviation`` its daily one;
    ``turnover`` dollars traded a day; ``lot`` how many coins the futures contract bundles (1000PEPEUSDT).
    """

    symbol: str
    name: str
    price_decimals: int
    volume_decimals: int
    start: float
    level: float
    turnover: float
    deviation: float = 0.035
    listed: date = date(2020, 1, 1)
    recorded: bool = False
    lot: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """A US stock or ETF, quoted raw.

    ``start`` is the raw price on ``listed`` (unused when recorded); ``volume`` shares a day; ``dividend`` the modelled
    quarterly amount, 0 for none; ``splits`` modelled ones as (day, from, to).
    """

    symbol: str
    name: str
    start: float
    volume: float
    dividend: float = 0.0
    exchange: str = "XNYS"
    etf: bool = False
    deviation: float = 0.015
    listed: date = date(2015, 1, 2)
    recorded: bool = False
    price_decimals: int = 2
    splits: tuple[tuple[date, int, int], ...] = field(default=())


def _decimals(price: float) -> tuple[int, int]:
    """Decimals of price and volume for a coin of about that price: some six figures each."""
    for limit, decimals in ((1000, (2, 3)), (100, (2, 3)), (10, (3, 2)), (1, (4, 1)), (0.1, (5, 0)), (0.001, (6, 0))):
        if price >= limit:
            return decimals
    return (8, 0)


def _coin(symbol: str, name: str, price: float, turnover: float, **more: object) -> Coin:
    price_decimals, volume_decimals = _decimals(price)
    given: dict[str, object] = {
        "price_decimals": price_decimals,
        "volume_decimals": volume_decimals,
        "start": price * 0.8,
        "level": price,
        "deviation": 0.04,
    }
    return Coin(symbol=symbol, name=name, turnover=turnover, **(given | more))  # type: ignore[arg-type]


# symbol, name, about what price, dollars traded a day: modest, so that a year's quote value in ticks fits 64 bits.
_MODELLED = """
BNB BNB 320 9e8|SOL Solana 95 2e9|XRP XRP 0.62 1.5e9|ADA Cardano 0.45 6e8|DOGE Dogecoin 0.11 9e8|AVAX Avalanche 28 4e8
DOT Polkadot 6.5 2e8|LINK Chainlink 14 5e8|TRX TRON 0.12 4e8|LTC Litecoin 85 4e8|BCH Bitcoin_Cash 310 3e8
NEAR NEAR 4.5 3e8|UNI Uniswap 7.5 2e8|ATOM Cosmos 8.5 2e8|ETC Ethereum_Classic 24 2e8|XLM Stellar 0.12 1e8
FIL Filecoin 5.2 2e8|APT Aptos 8.2 2e8|ARB Arbitrum 0.95 2e8|OP Optimism 1.8 2e8|INJ Injective 21 2e8|SUI Sui 1.6 5e8
SEI Sei 0.41 1e8|AAVE Aave 125 2e8|ALGO Algorand 0.18 9e7|XTZ Tezos 0.92 4e7|EOS EOS 0.75 9e7|EGLD MultiversX 38 3e7
SAND Sandbox 0.44 9e7|MANA Decentraland 0.42 7e7|AXS Axie_Infinity 6.8 6e7|THETA Theta 1.4 4e7|GRT Graph 0.19 8e7
CRV Curve 0.41 9e7|SNX Synthetix 2.3 4e7|COMP Compound 52 5e7|ZEC Zcash 27 6e7|DASH Dash 29 4e7
ICP Internet_Computer 10.5 1e8|HBAR Hedera 0.075 9e7|VET VeChain 0.027 6e7|RUNE THORChain 4.3 1e8
IMX Immutable 1.5 7e7|STX Stacks 1.7 8e7|KAVA Kava 0.66 2e7|ZIL Zilliqa 0.021 3e7|ENJ Enjin 0.27 2e7
CHZ Chiliz 0.09 6e7|BAT Basic_Attention 0.22 2e7|QTUM Qtum 2.9 3e7|NEO NEO 12.5 5e7|IOTA IOTA 0.21 2e7
ONT Ontology 0.24 2e7|YFI yearn.finance 6800 3e7|TIA Celestia 6.4 1e8|WLD Worldcoin 2.4 2e8|LDO Lido 1.7 1e8
FET Fetch 1.1 1e8
"""

COINS: tuple[Coin, ...] = (
    Coin(
        symbol="BTC", name="Bitcoin", price_decimals=2, volume_decimals=5, start=8000, level=38_000, turnover=1.8e9,
        deviation=0.025, listed=date(2017, 7, 1), recorded=True,
    ),
    Coin(
        symbol="ETH", name="Ethereum", price_decimals=2, volume_decimals=4, start=300, level=1900, turnover=1.2e9,
        deviation=0.03, listed=date(2017, 8, 17),
    ),
    _coin("PEPE", "Pepe", 0.0000085, 1.5e8, listed=date(2023, 5, 5), lot=1000),
    _coin("SHIB", "Shiba Inu", 0.0000145, 1e8, listed=date(2021, 5, 10), lot=1000),
    *(
        _coin(symbol, name.replace("_", " "), float(price), float(turnover))
        for symbol, name, price, turnover in (
            entry.split() for line in _MODELLED.split("\n") for entry in line.split("|") if entry
        )
    ),
)  # fmt: skip

STOCKS: tuple[Stock, ...] = (
    Stock(symbol="AAPL", name="Apple Inc.", start=0, volume=2e7, dividend=2.65, exchange="XNAS",
          listed=date(2000, 3, 1), recorded=True, price_decimals=4),
    Stock(symbol="MSFT", name="Microsoft Corp", start=0, volume=3e7, dividend=0.31, exchange="XNAS",
          listed=date(2012, 1, 3), recorded=True, price_decimals=4),
    Stock(symbol="KO", name="Coca-Cola Company", start=0, volume=1.2e7, dividend=0.305,
          listed=date(2012, 1, 3), recorded=True, price_decimals=4),
    Stock(symbol="IBM", name="International Business Machines", start=0, volume=4.5e6, dividend=1.1,
          listed=date(2012, 1, 3), recorded=True, price_decimals=4),
    Stock(symbol="NVDA", name="Nvidia Corp", start=480, volume=4e7, dividend=0.04, exchange="XNAS", deviation=0.022,
          splits=((date(2024, 6, 10), 1, 10),)),
    Stock(symbol="TSLA", name="Tesla, Inc.", start=700, volume=3e7, exchange="XNAS", deviation=0.025,
          splits=((date(2022, 8, 25), 1, 3),)),
    Stock(symbol="GOOG", name="Alphabet Inc. Class C", start=140, volume=2e7, dividend=0.2, exchange="XNAS"),
    Stock(symbol="AMZN", name="Amazon.com Inc", start=150, volume=4e7, exchange="XNAS"),
    Stock(symbol="JPM", name="JPMorgan Chase & Co", start=160, volume=9e6, dividend=1.15),
    Stock(symbol="BRK.B", name="Berkshire Hathaway Class B", start=350, volume=3.5e6, deviation=0.01),
    Stock(symbol="SPY", name="SPDR S&P 500 ETF Trust", start=430, volume=7e7, dividend=1.6, exchange="ARCX", etf=True,
          deviation=0.009),
    Stock(symbol="QQQ", name="Invesco QQQ Trust", start=370, volume=4e7, dividend=0.6, exchange="XNAS", etf=True,
          deviation=0.012),
)  # fmt: skip
