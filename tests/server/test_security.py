import httpx
import pytest

from oneiros.engine.local_model import LocalModel
from oneiros.server.security import host_name
from oneiros.server.settings import Settings, is_loopback
from tests.server.conftest import FakeServer, fake_server

pytestmark = pytest.mark.anyio

PAGE = "https://app.example"
MODELS = "/v1/models"


async def get(server: FakeServer, **headers: str) -> httpx.Response:
    async with server.client() as client:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.get(MODELS, headers=fields)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"]
)
async def test_this_machines_names_are_its_own(server: FakeServer, host: str) -> None:
    assert (await get(server, host=host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[", "10.0.0.5", "@"],
)
async def test_a_rebound_name_is_refused(server: FakeServer, host: str) -> None:
    response = await get(server, host=host)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "host_not_allowed"
    assert "--allowed-host" in response.json()["error"]["message"]


async def test_the_operator_can_allow_names(model_parts: LocalModel) -> None:
    server = fake_server(model_parts, Settings(allowed_hosts=frozenset({"box.lan"})))
    assert (await get(server, host="box.lan:8000")).status_code == 200
    assert (await get(server, host="other.lan")).status_code == 403


async def test_a_server_on_all_addresses_answers_to_addresses_but_not_to_names(
    model_parts: LocalModel,
) -> None:
    server = fake_server(model_parts, Settings(host="0.0.0.0"))
    assert (await get(server, host="192.168.1.5:8000")).status_code == 200
    assert (await get(server, host="[fe80::1]")).status_code == 200
    assert (await get(server, host="evil.example")).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://[x"},
        {"origin": ""},
        {"origin": "http://localhost:3000"},  # another server on this machine
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
async def test_foreign_web_pages_are_refused(server: FakeServer, headers: dict[str, str]) -> None:
    response = await get(server, **headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "same-origin"},
    ],
)
async def test_programs_and_the_servers_own_pages_are_not(
    server: FakeServer, headers: dict[str, str]
) -> None:
    assert (await get(server, **headers)).status_code == 200


async def test_an_allowed_page_gets_answers_that_it_may_read(model_parts: LocalModel) -> None:
    server = fake_server(model_parts, Settings(allowed_origins=frozenset({PAGE})))
    response = await get(server, origin=PAGE, sec_fetch_site="cross-site")
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "Origin" in response.headers["vary"]
    async with server.client() as client:
        asked = {
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        }
        preflight = await client.options("/v1/chat/completions", headers=asked)
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        asked["origin"] = "https://evil.example"
        assert (await client.options("/v1/chat/completions", headers=asked)).status_code == 403


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.b:80", "a.b"), ("[::1]:80", "::1"), ("A.B", "a.b"), ("", ""), ("[x", ""), ("a@b", "b")],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("example.org", False),
    ],
)
def test_what_counts_as_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
