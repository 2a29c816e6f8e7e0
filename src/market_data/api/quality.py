"""Quality route: checks, gaps and scores per day, and recent fetches."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from market_data.api.arguments import AssetClassQuery, Symbol
from market_data.api.documents import Quality
from market_data.api.problems import described
from market_data.api.served import Backing
from market_data.pipeline.read.status import quality_of
from market_data.storage.work.summaries import Summaries

router = APIRouter(prefix="/data", tags=["quality"])


@router.get("/quality/{symbol}", response_model=Quality, responses=described(404))
def quality(
    served: Backing,
    symbol: Symbol,
    days: Annotated[int, Query(ge=1, le=365, description="How many days back.")] = 7,
    asset_class: AssetClassQuery = None,
) -> Any:
    """How good an instrument's data of the last days is."""
    instrument = served.known_instrument(symbol, asset_class)
    return quality_of(Summaries(served.database), instrument, days, served.now())
