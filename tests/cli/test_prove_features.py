"""``prove features``: a feature of the user's own that breaks a law is found, and said where."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from typer.testing import CliRunner

from market_data.cli.app import app

HEAD = """
import numpy as np
from market_data.model.feature import feature

"""


def declared(body: str, lookback: int) -> str:
    return HEAD + dedent(
        f'''
        @feature(lookback={lookback}, inputs=("close",), unit="price")
        def mine(window):
            """Mine.

            Formula: mine.
            Null: never.
            Source: me.
            """
            {body}
        '''
    )


@pytest.mark.parametrize(
    ("body", "lookback", "said"),
    [
        ("return np.append(window.close[1:], np.nan)", 1, "it peeks"),
        ("return window.close - window.earlier(window.close, 3)", 2, "the lookback is too short"),
        ("return np.cumsum(window.close)", 5, "where the series begins"),
        ("return window.high - window.close", 0, "not declared as inputs"),
    ],
)
def test_a_broken_law_is_named(tmp_path: Path, body: str, lookback: int, said: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(declared(body, lookback))
    done = CliRunner().invoke(app, ["prove", "features", "--path", str(path)])
    assert done.exit_code == 1
    assert said in done.output + done.stderr


def test_a_lawful_feature_passes(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(declared("return window.close - window.earlier(window.close, 3)", 3))
    done = CliRunner().invoke(app, ["prove", "features", "--path", str(path)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prove", "features", "--path", "nowhere.py"], "nowhere.py is not a Python file"),
        (["prove", "BTC", "--path", "mine.py"], "--path goes with 'prove features'"),
    ],
)
def test_wrong_usage_says_what_is_wrong(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, said in done.stderr) == (2, True)
