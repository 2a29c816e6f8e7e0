"""Finer candles aggregate exactly to the coarser ones they were made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data.sandbox.block import (
    BUY,
    BUY_QUOTE,
    CLOSE,
    FIELDS,
    HIGH,
    HOUR,
    LOW,
    MINUTE,
    OPEN,
    SELL,
    SELL_QUOTE,
    TRADES,
    Block,
)
from market_data.sandbox.refine import refined, shared

PRICE = st.integers(1, 10**8)
VOLUME = st.integers(0, 10**9)


@st.composite
def parents(draw: st.DrawFn) -> Block:
    """Candles of any shape: flat, empty, one tick wide, with a quote value outside of their own prices."""
    columns = []
    for _ in range(draw(st.integers(1, 4))):
        prices = sorted(draw(st.lists(PRICE, min_size=4, max_size=4)))
        inner = draw(st.permutations(prices[1:3]))
        bought, sold = draw(VOLUME), draw(VOLUME)
        at = draw(st.integers(prices[0], prices[3]))
        columns.append([inner[0], prices[3], prices[0], inner[1], bought, sold, bought * at, sold * at, draw(VOLUME)])
    time = np.arange(len(columns), dtype=np.int64) * HOUR
    return Block(time, np.array(columns, np.int64).T.copy())


@settings(max_examples=150, deadline=None)
@given(block=parents(), parts=st.sampled_from([1, 7, 24, 60]), seed=st.integers(0, 2**62))
def test_children_add_up_to_their_parent(block: Block, parts: int, seed: int) -> None:
    children = refined(block, parts, HOUR // parts // 1000 * 1000, seed)
    by_parent = children.values.reshape(FIELDS, len(block), parts)
    assert (by_parent[OPEN, :, 0] == block.values[OPEN]).all()
    assert (by_parent[CLOSE, :, -1] == block.values[CLOSE]).all()
    assert (by_parent[HIGH].max(axis=1) == block.values[HIGH]).all()
    assert (by_parent[LOW].min(axis=1) == block.values[LOW]).all()
    for row in (BUY, SELL, BUY_QUOTE, SELL_QUOTE, TRADES):
        assert (by_parent[row].sum(axis=1) == block.values[row]).all()
    assert (children.values[BUY:] >= 0).all()
    assert (children.values[HIGH] >= children.values[[OPEN, CLOSE]].max(axis=0)).all()
    assert (children.values[LOW] <= children.values[[OPEN, CLOSE]].min(axis=0)).all()
    assert (by_parent[OPEN, :, 1:] == by_parent[CLOSE, :, :-1]).all()


def test_children_of_one_parent_do_not_depend_on_its_neighbours() -> None:
    values = np.array([[100, 130, 90, 120, 50, 60, 5500, 6500, 30], [120, 121, 80, 85, 0, 9, 0, 900, 4]], np.int64).T
    both = refined(Block(np.array([0, HOUR], np.int64), values), 60, MINUTE, 5)
    alone = refined(Block(np.array([HOUR], np.int64), values[:, 1:]), 60, MINUTE, 5)
    assert (both.values[:, 60:] == alone.values).all()


@pytest.mark.parametrize(
    ("total", "weight", "expected"),
    [(10, [1.0, 1.0], [5, 5]), (3, [0.0, 1.0], [0, 3]), (0, [1.0, 2.0], [0, 0]), (4, [0.0, 0.0], [2, 2])],
)
def test_shares_by_hand(total: int, weight: list[float], expected: list[int]) -> None:
    assert shared(np.array([total]), np.array([weight])).tolist() == [expected]
