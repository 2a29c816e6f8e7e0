"""The Python client: the same calls against a server or over a local database.

>>> from market_data.client import MarketData
>>> # data = MarketData("http://127.0.0.1:8000", key="mdk_…")    a server
>>> # data = MarketData.local()                                 a database on this machine
>>> # data.features("BTC", "1h", start="2026-01-01").to_pandas()
"""

from market_data.client.asking import ApiError, MarketData
from market_data.client.job import JobFailed

__all__ = ["ApiError", "JobFailed", "MarketData"]
