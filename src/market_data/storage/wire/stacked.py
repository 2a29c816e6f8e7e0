"""Several queries of different shapes as one statement: their columns share slots by type, and come apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

_KINDS: Final = {
    pl.Decimal: "numeric",
    pl.Datetime: "timestamptz",
    pl.Date: "date",
    pl.String: "text",
    pl.Float64: "float8",
    pl.Int64: "bigint",
    pl.Int32: "bigint",
    pl.Boolean: "boolean",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the queries: its name, its columns in order with the types they are wanted in, and the query itself."""

    name: str
    schema: Mapping[str, pl.DataType]
    query: str

    @property
    def slots(self) -> dict[str, str]:
        """The slot of each column: its PostgreSQL type and how many of that type came before."""
        taken: dict[str, int] = {}
        found = {}
        for name, dtype in self.schema.items():
            kind = _KINDS[type(dtype)]
            found[name] = f"{kind}_{taken.get(kind, 0)}"
            taken[kind] = taken.get(kind, 0) + 1
        return found


def stacked(layers: Sequence[Layer]) -> str:
    """One SELECT of all the layers' rows."""
    slots = sorted({slot for layer in layers for slot in layer.slots.values()})
    parts = []
    for layer in layers:
        column = {slot: name for name, slot in layer.slots.items()}
        shown = ", ".join(
            f"{'q.' + column[slot] if slot in column else 'NULL'}::{slot.rpartition('_')[0]} AS {slot}"
            for slot in slots
        )
        parts.append(f"SELECT '{layer.name}'::text AS layer, {shown} FROM ({layer.query}) AS q")
    return " UNION ALL ".join(parts)


def apart(rows: pl.DataFrame, layers: Sequence[Layer]) -> dict[str, pl.DataFrame]:
    """The rows of each layer, by its name, in no order."""
    by_name = {name: frame for (name,), frame in rows.partition_by("layer", as_dict=True).items()}
    nothing = rows.clear()
    return {
        layer.name: by_name.get(layer.name, nothing).select(
            pl.col(slot).cast(layer.schema[name]).alias(name) for name, slot in layer.slots.items()
        )
        for layer in layers
    }
