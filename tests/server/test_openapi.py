"""Whatever the OpenAPI document allows or forbids is answered as the document says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from oneiros.engine.local_model import LocalModel
from oneiros.server.settings import Settings
from tests.server.conftest import NAME, fake_server

load_all_checks()

# A request that fits the schema may still be refused: for a model that is not there, or for fields
# that do not go together, which JSON schemas of this size cannot say.
WANTED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
    ]
)


OPERATIONS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/embeddings"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def document(model_parts: LocalModel) -> schemathesis.BaseSchema:
    server = fake_server(model_parts, Settings(allowed_hosts=frozenset({"testserver"})))
    return schemathesis.openapi.from_asgi("/openapi.json", server.app)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (method, path, mode)
        for method, path in OPERATIONS
        for mode in GenerationMode
        if method == "POST" or mode is GenerationMode.POSITIVE  # a GET has nothing to get wrong
    ],
)
def test_answers_are_as_documented(
    document: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    operation = document[path][method]

    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=30,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    def ask(case: schemathesis.Case) -> None:
        model = case.body.get("model") if isinstance(case.body, dict) else None
        if isinstance(model, str) and 1 <= len(model) <= 1000:
            case.body["model"] = NAME  # so that it does not end with a 404
        case.call_and_validate(checks=WANTED)

    ask()


def test_every_operation_is_tried(document: schemathesis.BaseSchema) -> None:
    documented = [(op.ok().method.upper(), op.ok().path) for op in document.get_all_operations()]
    assert sorted(documented) == sorted(OPERATIONS)
