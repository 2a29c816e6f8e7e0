"""The whole document against the application: any request it allows is answered as it says, never with a 500."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from market_data.api.app import create_api

DOCUMENT = create_api().openapi()
# What takes no parameter cannot be asked wrongly.
FREE = {
    path for path, methods in DOCUMENT["paths"].items() for method in methods.values() if "parameters" not in method
}
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
CHECKS = (not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


# Without these nothing is asked for.
QUERIES = {"/trigger": {"symbol": "AAPL"}, "/bars/{symbol}": {"every": "1h"}}
KNOWN = {"symbol": st.sampled_from(["BTC", "AAPL"]), "timeframe": st.sampled_from(["1h", "1d"])}


CASES = [(*operation, kind) for operation in OPERATIONS for kind in ("positive", "negative")]
CASES = [(method, path, kind) for method, path, kind in CASES if kind == "positive" or path not in FREE]


@pytest.mark.parametrize(("method", "path", "kind"), CASES, ids=[" ".join(case) for case in CASES])
def test_answers_are_as_documented(asking: Any, method: str, path: str, kind: str) -> None:
    """Half of the cases name what is stored and ask for little else, so that there is something to answer."""
    seen: set[int] = set()

    @hypothesis.settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        case=SCHEMA[path][method].as_strategy(generation_mode=GenerationMode(kind)),
        known=st.none() | st.fixed_dictionaries(KNOWN),
    )
    def answers(case: Case, known: dict[str, str] | None) -> None:
        if known is not None:
            case.path_parameters = {**case.path_parameters, **{k: v for k, v in known.items() if f"{{{k}}}" in path}}
            case.query = next((query for end, query in QUERIES.items() if path.endswith(end)), {})
        sent = case.as_transport_kwargs(base_url="http://127.0.0.1:8000")
        plain = {k: v for k, v in sent.get("headers", {}).items() if v.isascii() and v.isprintable()}
        answer = asking.request(
            sent["method"], sent["url"], params=sent.get("params"), headers={**plain, "Accept": "application/json"}
        )
        seen.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    answers()
    if kind == "positive" and "{job_id}" not in path:
        assert seen & {200, 202}


def test_every_answer_has_an_example_that_is_one() -> None:
    found = 0
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {}).get("application/json")
                if status.startswith("2") and content is not None:
                    schema = {**content["schema"], "components": DOCUMENT["components"]}
                    validator = Draft202012Validator(schema, format_checker=FormatChecker())
                    assert validator.is_valid(content["example"]), path
                    found += 1
    # All but Prometheus' text.
    assert found == len(OPERATIONS) - 1


@pytest.mark.prove
def test_the_whole_document_holds_against_a_real_server(
    database_url: str,
    clock: Any,
    opening: Callable[..., AbstractContextManager[Any]],
    filling: Callable[[Any], None],
    reaching: Callable[[Any], AbstractContextManager[str]],
    tmp_path: Path,
) -> None:
    """By schemathesis' own program: examples, the edges of every constraint, random requests, and links followed."""
    with opening(database_url, clock) as (served, _):
        filling(served.app)
        with reaching(served) as url:
            command = [
                str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/api/v1/openapi.json", "--no-color",
                # A schema cannot say that a range must not be empty or that a cursor must be one of ours.
                "--exclude-checks", "positive_data_acceptance", "--max-examples", "60", "--seed", "1",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:]
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found
    print(f"schemathesis: {found[0]}")
    assert found[1] == found[2]
    assert int(found[1]) > 2_000
