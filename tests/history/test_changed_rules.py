"""Rows that were checked under other rules are stale: renewed, they say what the rules of today say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest
from history_desk import Desk, content

from market_data.model.rule import Rule, Severity, rule
from market_data.pipeline.read.prove import Prover
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.recompute import Recomputation
from market_data.storage.series.present import Counts

DEAR = 105.0


@rule(Severity.REJECT)
def too_dear() -> pl.Expr:
    """The close is at most DEAR."""
    return pl.col("close") <= DEAR


def with_rules(desk: Desk, *rules: Rule) -> Shelves:
    return replace(desk.shelves, rules=rules)


def renewed(desk: Desk, shelves: Shelves) -> tuple[int, int]:
    """Series found stale, and candles changed."""
    recomputation = Recomputation(desk.database, shelves, lambda: desk.now)
    stale = recomputation.note_stale()
    return stale, sum(step.changed for step in recomputation.run())


def test_a_new_rejecting_rule_marks_what_is_stored(desk: Desk) -> None:
    desk.offer([desk.candle(i, str(100 + i % 9)) for i in range(60)])
    before = desk.present()
    stricter = with_rules(desk, *desk.shelves.rules, too_dear)
    assert renewed(desk, stricter) == (1, 60)
    assert renewed(desk, stricter) == (0, 0)
    after = desk.present()
    dear = before["close"].cast(pl.Float64) > DEAR
    assert dear.sum() == 18
    assert after.filter(dear)["validation_notes"].to_list() == ["too_dear"] * 18
    assert not after.filter(dear)["is_validated"].any()
    assert (after.filter(dear)["quality_score"] < before.filter(dear)["quality_score"]).all()
    same = [name for name in before.columns if name not in ("feature_version", "computed_at", "updated_at")]
    assert after.filter(~dear).select(same).equals(before.filter(~dear).select(same))
    # Nobody's facts were touched, and what is known now is what stands.
    assert desk.table("data_corrections", "count(*)", "1") == [(0,)]
    strict_desk = Desk(desk.database, stricter, desk.series)
    assert content(strict_desk.known(desk.now)).equals(content(after))
    # The same again is now refused, and its neighbours are not.
    assert strict_desk.offer([desk.candle(i, str(100 + i % 9)) for i in range(60)]).counts == Counts(
        unchanged=42, rejected=18
    )


def test_a_rule_that_is_gone_takes_its_notes_with_it(desk: Desk) -> None:
    desk.offer([desk.candle(i, volume="1000" if i == 40 else "10") for i in range(60)])
    assert desk.present()["validation_notes"][40] == "volume_anomaly"
    fewer = with_rules(desk, *(each for each in desk.shelves.rules if each.name != "volume_anomaly"))
    assert renewed(desk, fewer) == (1, 60)
    assert desk.present()["validation_notes"][40] is None
    for check in Prover(desk.database, fewer, lambda: desk.now, samples=1).prove(desk.series):
        assert check.failures == []


def test_the_version_follows_what_a_rule_does(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [each.version for each in desk.shelves.rules]
    assert all(versions)
    assert len(set(versions)) == len(versions)
    described = rule(Severity.REJECT)(_described_anew())
    assert described.version == too_dear.version
    assert rule(Severity.NOTE)(_described_anew()).version != too_dear.version
    monkeypatch.setitem(globals(), "DEAR", 106.0)
    assert rule(Severity.REJECT)(_described_anew()).version != too_dear.version


def _described_anew() -> Callable[[], pl.Expr]:
    def too_dear() -> pl.Expr:
        """The same, in other words."""
        # And with a remark.
        return pl.col("close") <= DEAR

    return too_dear
