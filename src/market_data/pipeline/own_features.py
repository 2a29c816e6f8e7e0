"""The user's own features: read from their files and checked, so that each mistake is said in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from market_data.model.dataset import CANDLES, DATASETS
from market_data.model.errors import ConfigError
from market_data.model.feature import Feature
from market_data.model.proof import prove_on_trials
from market_data.pipeline.write.observe import SOURCE_VALUES
from market_data.shelf import collect_file
from market_data.storage.server.migration_files import present_columns

# PostgreSQL cuts longer names off.
LONGEST_NAME: Final = 63
# A feature that looks back further would have years of candles read for every new one.
LONGEST_LOOKBACK: Final = 100_000
# Two of every asset class and timeframe.
TRIALS: Final = 48
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
INPUTS: Final = (
    *(name for name, dtype in CANDLES.schema.items() if dtype.is_decimal() or dtype.is_float()),
    "taker_sell_volume",
    *SOURCE_VALUES,
)
OBSERVED: Final = tuple(name for name, dataset in DATASETS.items() if "known_at" in dataset.schema)


def own_features(paths: Sequence[Path], ours: Mapping[str, Feature]) -> dict[str, Feature]:
    """The features that the files declare, by name.

    Raises:
        ConfigError: naming the file, the feature and what is wrong: it cannot be imported, declares no feature, has a
            name that cannot be a column's or is taken, or reads what no candle has.
    """
    found: dict[str, Feature] = {}
    for path in paths:
        declared = collect_file(path.expanduser(), Feature)
        if not declared:
            raise ConfigError(f"{path} declares no feature; see docs/howto/add-a-feature.md")
        for name, each in declared.items():
            if name in ours:
                raise ConfigError(f"{path}: feature {name} has the name of a built-in feature; give it another")
            if name in found:
                raise ConfigError(f"{path}: feature {name} is declared in another of your files too")
            check(each, str(path))
            found[name] = each
    return found


def check(feature: Feature, where: str) -> None:
    """Whether a feature can be stored and fed.

    Raises:
        ConfigError: saying what is wrong; `where` is what declares it.
    """
    said = f"{where}: feature {feature.name}"
    if len(feature.name) > LONGEST_NAME:
        raise ConfigError(f"{said} has a name of {len(feature.name)} letters; the longest is {LONGEST_NAME}")
    if not _NAME.fullmatch(feature.name):
        raise ConfigError(f"{said}: a name is made of a-z, 0-9 and _ and begins with a letter")
    if feature.name in present_columns():
        raise ConfigError(f"{said} has the name of a column of every candle; give it another")
    for what, names, known in (("column", feature.inputs, INPUTS), ("dataset", feature.observations, OBSERVED)):
        for name in names:
            if name not in known:
                raise ConfigError(f"{said} reads the {what} {name!r}, which there is not; {_nearest(name, known)}")
    lookback = feature.lookback
    if isinstance(lookback, int) and not 0 <= lookback <= LONGEST_LOOKBACK:
        raise ConfigError(f"{said} looks back {lookback} candles; from 0 to {LONGEST_LOOKBACK} are allowed")


def violations(feature: Feature) -> list[str]:
    """What a feature does wrong on made-up series, in words; empty for one that keeps every law."""
    try:
        return [str(violation) for _, violation in prove_on_trials([feature], TRIALS)]
    except Exception as error:
        return [f"{feature.name}: it failed on a made-up series: {type(error).__name__}: {error}"]


def _nearest(name: str, known: Sequence[str]) -> str:
    match = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else f"there are: {', '.join(known)}"
