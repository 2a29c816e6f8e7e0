"""The whole document against the application: any request it allows is answered as it says, never with a 500."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from market_data.api.app import create_api

DOCUMENT = create_api().openapi()
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
CHECKS = (not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[" ".join(operation) for operation in OPERATIONS])
def test_answers_are_as_documented(asking: Any, method: str, path: str) -> None:
    @hypothesis.settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=SCHEMA[path][method].as_strategy())
    def answers(case: Case) -> None:
        kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1:8000")
        headers = {k: v for k, v in kwargs.get("headers", {}).items() if v.isascii() and v.isprintable()}
        answer = asking.request(
            kwargs["method"], kwargs["url"], params=kwargs.get("params"), headers={**headers, "Accept": "application/json"}
        )
        case.validate_response(answer, checks=CHECKS)

    answers()


def test_every_field_has_an_example_or_a_description() -> None:
    for name in ("InstrumentStatus", "PipelineMetrics", "Receipt", "Quality", "EnrichedRow"):
        assert DOCUMENT["components"]["schemas"][name]["required"]
