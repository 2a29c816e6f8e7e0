"""Features in files of the user's own: each mistake is said in one sentence, before anything is stored."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from market_data.bootstrap.shelves import open_shelves
from market_data.model.errors import ConfigError
from market_data.pipeline.own_features import violations
from market_data.storage.series.own_features import declare, stored
from market_data.storage.server.database import Database

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HEAD = "import numpy as np\nfrom datetime import timedelta\nfrom market_data.model.feature import feature\n"
FEATURE = '''

@feature(lookback={lookback}, inputs={inputs}, unit="price"{more})
def {name}(window):
    """Mine.

    Formula: mine.
    Null: never.
    Source: me.
    """
    return {body}
'''


def write(folder: Path, name: str = "span_3", **parts: object) -> Path:
    """A file with one feature."""
    values = {
        "lookback": 3,
        "inputs": ("close",),
        "more": "",
        "body": "window.close - window.earlier(window.close, 3)",
    } | parts
    path = folder / "mine.py"
    path.write_text(HEAD + FEATURE.format(name=name, **values))
    return path


def features_of(path: Path):
    shelves = open_shelves([path])
    return [each for each in shelves.features if each.name in shelves.own]


def test_they_stand_beside_ours(tmp_path: Path) -> None:
    shelves = open_shelves([write(tmp_path)])
    assert shelves.own == ("span_3",)
    assert [each.name for each in shelves.features][:-1] == [each.name for each in open_shelves().features]
    assert shelves.version != open_shelves().version


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"name": "atr"}, "mine.py: feature atr has the name of a built-in feature; give it another"),
        ({"name": "close"}, "mine.py: feature close has the name of a column of every candle; give it another"),
        ({"name": "source"}, "feature source has the name of a column of every candle"),
        ({"name": "Mine"}, "feature Mine: a name is made of a-z, 0-9 and _ and begins with a letter"),
        ({"name": "a" * 64}, "has a name of 64 letters; the longest is 63"),
        ({"inputs": ("clsoe",)}, "feature span_3 reads the column 'clsoe', which there is not; did you mean 'close'?"),
        ({"inputs": ("bid",)}, "reads the column 'bid', which there is not; there are: open, high, low, close, volume"),
        ({"more": ", observations={'funding': timedelta(1)}"}, "the dataset 'funding', which there is not"),
        ({"lookback": -1}, "looks back -1 candles; from 0 to 100000 are allowed"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, parts: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_shelves([write(tmp_path, **parts)])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for text, said in (
        ("def mine(:\n    pass", r"mine.py cannot be imported: line 1: "),
        ("import no_such_module", "mine.py cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1", "mine.py declares no feature"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            open_shelves([path])
    with pytest.raises(ConfigError, match=r"gone\.py is not a Python file"):
        open_shelves([tmp_path / "gone.py"])


def test_the_example_of_the_howto_keeps_the_laws(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "add-a-feature.md").read_text()
    (example,) = re.findall(r"^```python[^\n]*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "momentum.py"
    path.write_text(example)
    (momentum,) = features_of(path)
    assert (momentum.name, violations(momentum)) == ("momentum_5", [])


def test_two_files_with_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match="feature span_3 is declared in another of your files too"):
        open_shelves([write(tmp_path / "a"), write(tmp_path / "b")])


def test_columns_appear_once_and_stay(database: Database, tmp_path: Path) -> None:
    mine = features_of(write(tmp_path, name="order"))
    assert declare(database, mine, violations, NOW) == ["order"]
    assert declare(database, mine, violations, NOW) == []
    (known,) = stored(database)
    assert (known.name, known.type, known.unit, known.version) == (
        "order",
        "double precision",
        "price",
        mine[0].version,
    )
    # Another definition is another version; without any the column is still there.
    other = features_of(write(tmp_path, name="order", body="window.close - window.earlier(window.close, 2)"))
    assert declare(database, other, violations, NOW) == ["order"]
    assert declare(database, [], violations, NOW) == []
    assert stored(database)[0].version == other[0].version != mine[0].version


def test_a_text_is_not_put_where_numbers_are(database: Database, tmp_path: Path) -> None:
    declare(database, features_of(write(tmp_path)), violations, NOW)
    text = write(
        tmp_path, more=", labels=('down', 'up')", body="(window.close > window.open).astype(np.int8)",
        inputs=("open", "close"), lookback=0,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="span_3 is stored as double precision and now gives text: give it another"):
        declare(database, features_of(text), violations, NOW)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"body": "np.append(window.close[1:], np.nan)"}, "it peeks"),
        ({"lookback": 2}, "the lookback is too short"),
        ({"body": "np.cumsum(window.close)"}, "where the series begins"),
        ({"body": "window.close[:-1]"}, "it failed on a made-up series: TypeError: feature span_3 gave shape"),
        ({"body": "1 / 0"}, "it failed on a made-up series: ZeroDivisionError"),
    ],
)
def test_what_breaks_a_law_is_not_taken_in(database: Database, tmp_path: Path, parts: dict[str, object], said: str):
    with pytest.raises(ConfigError, match="feature span_3 is not taken in") as raised:
        declare(database, features_of(write(tmp_path, **parts)), violations, NOW)
    assert said in str(raised.value)
    assert stored(database) == []
    assert database.frame("SELECT * FROM user_features").columns == ["symbol", "asset_class", "timeframe", "timestamp"]
