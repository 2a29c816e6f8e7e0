"""The three sources behind one door: an ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette

from market_data.sandbox.archive import ArchiveHouse
from market_data.sandbox.binance import FUTURES, SPOT, BinanceHouse
from market_data.sandbox.binance_derivatives import DerivativesCounter
from market_data.sandbox.binance_socket import BinanceSockets
from market_data.sandbox.binance_trades import TradesCounter
from market_data.sandbox.faults import Application, FaultyDoor, parse_faults
from market_data.sandbox.feed import Feed
from market_data.sandbox.limits import Weights
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.massive import MassiveHouse
from market_data.sandbox.massive_options import MassiveOptions
from market_data.sandbox.massive_reference import MassiveReference
from market_data.sandbox.massive_socket import MassiveSockets
from market_data.sandbox.massive_ticks import MassiveTicks
from market_data.sandbox.yahoo import YahooHouse
from market_data.sandbox.yahoo_private import YahooPrivate
from market_data.sandbox.yahoo_socket import YahooSockets


def create_app(market: Marketplace | None = None, *, faults: str = "", limits: bool = True) -> Application:
    """The sandbox's application.

    Args:
        market: the histories, with their seed and clock; the default seed and the real clock when None.
        faults: shares by fault, like ``429:0.1,drop:0.01``.
        limits: whether Binance's request weight is counted and enforced; the limit itself is stated either way.

    Raises:
        UsageError: for a fault that does not exist.
    """
    market = market or Marketplace()
    shares = parse_faults(faults)
    houses = (MassiveHouse, MassiveTicks, MassiveReference, MassiveOptions, YahooHouse, YahooPrivate, ArchiveHouse)
    routes = [route for house in houses for route in house(market).routes()]
    for venue in (FUTURES, SPOT):
        house = BinanceHouse(market, venue, Weights(venue.weight_limit, enforced=limits))
        routes += [*house.routes(), *TradesCounter(house).routes()]
        if venue.futures:
            routes += DerivativesCounter(house, limits=limits).routes()
    feed, disconnect = Feed(market), shares.get("disconnect", 0.0)
    sockets = [*BinanceSockets(feed, FUTURES, disconnect).routes(), *BinanceSockets(feed, SPOT, disconnect).routes()]
    sockets += [*MassiveSockets(feed, disconnect).routes(), *YahooSockets(feed, disconnect).routes()]
    app: Application = Starlette(routes=[*routes, *sockets])
    return FaultyDoor(app, shares, market.seed) if shares else app
