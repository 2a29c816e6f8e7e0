"""The page of tables: what the database declares of every column, and what `meanings.yaml` says of it."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.rows import dict_row

from market_data import features as feature_shelf
from market_data.model.dataset import DATASETS
from market_data.model.feature import Feature
from market_data.shelf import collect
from market_data.storage.server.database import Database
from reference.markdown import code, page, table

MEANINGS = yaml.safe_load((Path(__file__).parent / "meanings.yaml").read_text(encoding="utf-8"))
DECLARED = {dataset.table: dataset for dataset in DATASETS.values()}
INTRODUCTION = """
All moments are UTC (`timestamptz`). `numeric` is exact. Facts (`candles`, reference and derivatives tables) are
appended and never changed; `market_data_v2` is the present derived from them:
[decision 4](../decisions/0004-facts-and-present.md). (key): part of the primary key.
"""
COLUMNS = """
SELECT relation.relname AS table_name, attribute.attname AS column_name,
       format_type(attribute.atttypid, attribute.atttypmod) AS type, NOT attribute.attnotnull AS optional,
       attribute.attidentity <> '' AS numbered, pg_get_expr(value.adbin, value.adrelid) AS default_value,
       coalesce(attribute.attnum = ANY (key.conkey), false) AS in_key
FROM pg_class relation
JOIN pg_attribute attribute ON attribute.attrelid = relation.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
LEFT JOIN pg_attrdef value ON value.adrelid = relation.oid AND value.adnum = attribute.attnum
LEFT JOIN pg_constraint key ON key.conrelid = relation.oid AND key.contype = 'p'
WHERE relation.relnamespace = current_schema()::regnamespace AND relation.relkind IN ('r', 'p')
  AND NOT relation.relispartition
ORDER BY relation.relname, attribute.attnum
"""
SHORT = {"timestamp with time zone": "timestamptz", "double precision": "double", "character varying": "varchar"}


def tables_page(database: Database) -> str:
    """Every table and column.

    Raises:
        KeyError: naming tables and columns without a meaning, and meanings without a table or column.
    """
    found = columns(database)
    features = collect(feature_shelf, Feature)
    meanings: dict[str, dict[str, str]] = defaultdict(dict)
    unknown = []
    for name, rows in found.items():
        for row in rows:
            meaning = _meaning(name, row["column_name"], features)
            if meaning is None:
                unknown.append(f"{name}.{row['column_name']}")
            else:
                meanings[name][row["column_name"]] = meaning
    stale = [
        f"{name}.{column}"
        for name, said in MEANINGS["tables"].items()
        for column in said.get("columns", {})
        if column not in {row["column_name"] for row in found.get(name, [])}
    ]
    if unknown or stale:
        raise KeyError(f"tools/reference/meanings.yaml lacks {unknown}; it tells of {stale}, which do not exist")
    listed = table(("table", "holds"), [(f"[`{name}`](#{name})", _about(name)) for name in found])
    return page("Tables", INTRODUCTION, listed, *[_table(name, rows, meanings[name]) for name, rows in found.items()])


def columns(database: Database) -> dict[str, list[dict[str, Any]]]:
    """The columns of every table, partitions left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    with psycopg.connect(database.conninfo(), row_factory=dict_row) as connection:
        for row in connection.execute(COLUMNS):
            found.setdefault(row["table_name"], []).append(row)
    return found


def _meaning(name: str, column: str, features: dict[str, Feature]) -> str | None:
    said = MEANINGS["tables"].get(name, {"columns": {}}).get("columns", {})
    if column in said:
        return str(said[column])
    if name == "market_data_v2" and column in features:
        feature = features[column]
        return f"{feature.sections['Summary']} In {feature.unit}: [feature](features.md#{column})."
    dataset = DECLARED.get(name)
    if dataset is not None and (told := dataset.record.model_fields.get(column)) is not None and told.description:
        return told.description
    if (dataset is None and name not in MEANINGS["tables"]) or column not in MEANINGS["everywhere"]:
        return None
    return str(MEANINGS["everywhere"][column])


def _about(name: str) -> str:
    """What a table holds; that of a dataset says so itself where nothing else does."""
    said = MEANINGS["tables"].get(name)
    return str(said["about"]) if said else DECLARED[name].about


def _table(name: str, rows: list[dict[str, Any]], meanings: dict[str, str]) -> str:
    cells = [
        (
            code(row["column_name"]) + (" (key)" if row["in_key"] else ""),
            _type(row["type"]),
            "yes" if row["optional"] else "no",
            _default(row),
            meanings[row["column_name"]].replace("|", "\\|"),
        )
        for row in rows
    ]
    return f"## {name}\n\n{_about(name)}\n\n" + table(("column", "type", "may be null", "default", "meaning"), cells)


def _type(declared: str) -> str:
    for long, short in SHORT.items():
        declared = declared.replace(long, short)
    return declared


def _default(row: dict[str, Any]) -> str:
    if row["numbered"]:
        return "counted up"
    value = row["default_value"]
    return "" if value is None else code(value.partition("::")[0])
