"""The whole document against the application: any request it allows is answered as it says, never with a 500."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
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
            case.query = {"symbol": "AAPL"} if path.endswith("/trigger") else {}
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


def test_every_field_has_an_example_or_a_description() -> None:
    for name in ("InstrumentStatus", "PipelineMetrics", "Receipt", "Quality", "EnrichedRow"):
        assert DOCUMENT["components"]["schemas"][name]["required"]
