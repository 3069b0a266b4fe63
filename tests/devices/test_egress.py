"""The guard of the way out to the network."""

import asyncio
import base64
import gzip
import ssl
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.devices import egress as module
from oneiros.devices.egress import Egress, Fetched, Limits, Resolve, SiteList, is_public
from oneiros.devices.egress_proxy import EgressProxy
from oneiros.kernel.tools import ToolError
from tests.devices.web_server import Answer, Drip, serving

HTML = {"Content-Type": "text/html; charset=utf-8"}
release = threading.Event()


def handle(path: str, headers: dict[str, str]) -> Answer:
    match path.partition("?"):
        case ("/page", _, _):
            return 200, HTML, f"host {headers['Host']} {headers.get('Cookie')}".encode()
        case ("/to", _, target):
            return 302, {"Location": target, "Set-Cookie": "a=b"}, b""
        case ("/loop", _, _):
            return 301, {"Location": "/loop"}, b""
        case ("/big", _, _):
            return 200, HTML | {"Content-Length": "99999999"}, b"x"
        case ("/endless", _, _):
            return 200, HTML, b"x" * 3_000_000
        case ("/bomb", _, _):
            return 200, HTML | {"Content-Encoding": "gzip"}, gzip.compress(b"x" * 3_000_000)
        case ("/bombs", _, _):
            body = gzip.compress(gzip.compress(b"x"))
            return 200, HTML | {"Content-Encoding": "gzip, gzip"}, body
        case ("/picture", _, _):
            return 200, {"Content-Type": "image/png"}, b"\x89PNG"
        case ("/slow", _, _):
            release.wait(20)
            return 200, HTML, b""
        case ("/drip", _, _):
            return 200, HTML, Drip()
        case ("/heads", _, _):
            return 200, {f"X-{n}": "y" * 1000 for n in range(1000)}, b""
        case ("/broken", _, _):
            return 200, HTML | {"Content-Length": "50"}, b"short"
    return 404, HTML, b""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(handle) as port:
        yield port
        release.set()


def resolving(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def get(
    url: str,
    *sites: str,
    resolve: Resolve | None = None,
    accept: Sequence[str] = (),
    limits: Limits | None = None,
) -> Fetched:
    limits = limits or Limits(bytes=1_000_000, seconds=20)
    guard = Egress(lambda _: sites, where="sites.txt", limits=limits, resolve=resolve)
    return asyncio.run(guard.get("assistant", url, accept=accept))


def refusal(url: str, *sites: str, resolve: Resolve | None = None, **options: object) -> str:
    with pytest.raises(ToolError) as caught:
        get(url, *sites, resolve=resolve, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_page_of_an_allowed_site_is_fetched(port: int) -> None:
    found = get(f"http://127.0.0.1:{port}/page#part", f"127.0.0.1:{port}")
    assert found.data == f"host 127.0.0.1:{port} None".encode()
    assert (found.content_type, found.charset) == ("text/html", "utf-8")
    assert (found.url, found.host) == (f"http://127.0.0.1:{port}/page", "127.0.0.1")


def test_nothing_may_be_reached_by_default() -> None:
    said = refusal("https://example.org/x")
    assert said == (
        'The site example.org may not be reached by "assistant". Use another source, or ask the '
        "person to allow it in sites.txt."
    )


@pytest.mark.parametrize(
    ("url", "site", "allowed"),
    [
        ("https://example.org/", "example.org", True),
        ("example.org", "EXAMPLE.org", True),
        ("http://EXAMPLE.ORG./", "example.org", True),
        ("https://www.example.org/", "example.org", False),
        ("https://www.example.org/", "*.example.org", True),
        ("https://example.org/", "*.example.org", False),
        ("https://badexample.org/", "*.example.org", False),
        ("https://example.org.evil.net/", "example.org", False),
        ("https://example.org:8443/", "example.org", False),
        ("https://example.org:8443/", "example.org:8443", True),
        ("https://example.org/", "example.org:443", True),
        ("https://anything.net/", "*", True),
        ("https://anything.net:22/", "*", False),
        ("https://bücher.example/", "xn--bcher-kva.example", True),
    ],
)
def test_sites_are_hosts_patterns_and_ports(url: str, site: str, allowed: bool) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("looked up")

    said = refusal(url, site, resolve=resolve)
    assert ("cannot be looked up" in said) == allowed, said


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "127.0.0.1", "0.0.0.0", "169.254.169.254", "192.168.1.1", "100.64.0.1"),
        *("::1", "::ffff:127.0.0.1", "fe80::1%eth0", "fd00::1", "64:ff9b::7f00:1", "2002:7f00:1::"),
        *("224.0.0.1", "255.255.255.255", "2001:0:1::", "::", "::7f00:1", "fec0::1", "ff0e::1"),
        *("168.63.129.16", "::ffff:168.63.129.16", "64:ff9b:1::1", "fd00:ec2::254", "4000::1"),
    ],
)
def test_addresses_inside_of_the_network_are_not_reached(address: str) -> None:
    assert not is_public(address)
    said = refusal("https://example.org/", "*", resolve=resolving("93.184.216.34", address))
    assert f"has the address {address} inside of this network" in said
    assert '"example.org:443"' in said


@given(st.ip_addresses(v=4))
def test_public_addresses_are_the_same_inside_of_version_6(address: object) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://0x7f.1/", "http://2130706433/", "http://[::1]/",
     "http://[::ffff:127.0.0.1]/", "http://localhost/", "http://0177.0.0.1/", "http://127.1/",
     "http://0/", "http://[::127.0.0.1]/", "http://127。0。0。1/", "http://LOCALHOST./"],
)  # fmt: skip
def test_spellings_of_this_machine_are_not_reached(url: str) -> None:
    said = refusal(url, "*")
    assert any(
        why in said for why in ("inside of this network", "cannot be looked up", "is no address")
    )


def test_a_name_is_looked_up_once_and_that_address_is_used(port: int) -> None:
    asked = []

    async def rebinding(host: str, at: int) -> Sequence[str]:
        asked.append((host, at))
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    found = get(f"http://site.test:{port}/page", f"site.test:{port}", resolve=rebinding)
    assert found.data.startswith(f"host site.test:{port}".encode())
    assert asked == [("site.test", port)]


def test_an_address_that_does_not_answer_is_followed_by_the_next(port: int) -> None:
    resolve = resolving("127.0.0.9", "127.0.0.1")
    assert get(f"http://site.test:{port}/page", f"site.test:{port}", resolve=resolve)
    said = refusal(f"http://site.test:{port}/", f"site.test:{port}", resolve=resolving("127.0.0.9"))
    assert said.startswith("site.test cannot be reached")


def through_proxy(port: int, request: str, *sites: str, password: str | None = None) -> str:
    """What a program gets that asks the proxy, where every name points here."""

    async def ask() -> str:
        guard = Egress(lambda _: sites, resolve=resolving("127.0.0.9", "127.0.0.1"))
        proxy = EgressProxy(guard, "assistant")
        address = await proxy.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(address).port)
        secret = f"{proxy.user}:{password or proxy.password}".encode()
        login = f"Proxy-Authorization: Basic {base64.b64encode(secret).decode()}"
        writer.write(f"{request}\r\n{login}\r\n\r\n".encode())
        answer = await reader.read() if "CONNECT" not in request else await reader.read(500)
        writer.close()
        await proxy.close()
        return answer.decode()

    return asyncio.run(ask())


def test_programs_reach_through_the_proxy_what_the_guard_lets_them(port: int) -> None:
    site = f"site.test:{port}"
    asked = f"GET http://{site}/page HTTP/1.1\r\nHost: other.test"
    found = through_proxy(port, asked, site)
    assert found.endswith(f"host {site} None")  # what was allowed, not what the program names
    assert "403" in through_proxy(port, asked)
    assert "403" in through_proxy(port, "GET http://site.test/ HTTP/1.1", "*")
    assert "403" in through_proxy(port, "CONNECT 169.254.169.254:443 HTTP/1.1", "*")
    assert "403" in through_proxy(port, "CONNECT site.test:22 HTTP/1.1", "*")
    assert "407" in through_proxy(port, asked, site, password="wrong")
    assert "400" in through_proxy(port, "GET ftp://site.test/ HTTP/1.1", "*")
    assert "200" in through_proxy(port, f"CONNECT {site} HTTP/1.1\r\nX: y", site)[:20]


def test_redirects_are_checked_like_any_address(port: int) -> None:
    here = f"127.0.0.1:{port}"
    found = get(f"http://{here}/to?/page", here)
    assert found.url == f"http://{here}/page"
    assert found.data.endswith(b"None")  # cookies are not kept
    assert "site.test:" in refusal(f"http://{here}/to?http://site.test:{port}/page", here)
    assert "inside of this network" in refusal(f"http://{here}/to?http://localhost/", here, "*")
    assert "is no address of a page" in refusal(f"http://{here}/to?file:///etc/passwd", here)
    assert "redirected more than 5 times" in refusal(f"http://{here}/loop", here)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/big", "has 99,999,999 bytes; at most 1,000,000"),
        ("/endless", "more than 1,000,000 bytes"),
        ("/bomb", "more than 1,000,000 bytes"),
        ("/bombs", "packed in a way that was not asked for"),
        ("/nothing", "status 404 Not Found. There is no such page"),
        ("/broken", "broke the connection off"),
        ("/picture", "is image/png, which cannot be read here"),
    ],
)
def test_answers_that_cannot_be_used(port: int, path: str, said: str) -> None:
    here = f"127.0.0.1:{port}"
    assert said in refusal(f"http://{here}{path}", here, accept=["text/*"])


def test_a_server_that_does_not_answer_is_not_waited_for(port: int) -> None:
    here = f"127.0.0.1:{port}"
    said = refusal(f"http://{here}/slow", here, limits=Limits(seconds=0.2))
    assert said.startswith("127.0.0.1 did not answer in 0.2 seconds")


@pytest.mark.parametrize(
    "url",
    ["", "ftp://example.org/", "file:///etc/passwd", "javascript:alert(1)", "https://",
     "https://user:secret@example.org/", "https://exa mple.org/", "http://[::1", "data:text/html,x",
     "https://example.org:99999/", "https://" + "x" * 300 + ".org/"],
)  # fmt: skip
def test_what_is_no_address_of_a_page_is_refused(url: str) -> None:
    said = refusal(url, "*", resolve=None)
    assert "secret" not in said


def test_certificates_are_checked_against_the_name_not_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(_certificate(tmp_path, "site.test"))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "site.test.pem"))
    with serving(handle, server) as port:
        here = resolving("127.0.0.1")
        url = f"https://site.test:{port}/page"
        assert "cannot be reached" in refusal(url, f"site.test:{port}", resolve=here)
        monkeypatch.setattr(module, "_tls", lambda: trusting)
        assert get(url, f"site.test:{port}", resolve=here).data.startswith(b"host site.test")
        other = f"https://other.test:{port}/page"
        assert "cannot be reached" in refusal(other, f"other.test:{port}", resolve=here)
        down = f"https://site.test:{port}/to?http://site.test:{port}/page"
        assert "not encrypted" in refusal(down, f"site.test:{port}", resolve=here)


def _certificate(folder: Path, name: str) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


def test_a_server_that_drips_is_not_waited_for(port: int) -> None:
    here = f"127.0.0.1:{port}"
    for path in ("/drip", "/heads"):
        said = refusal(f"http://{here}{path}", here, limits=Limits(seconds=0.3))
        assert "did not answer in 0.3 seconds" in said or "broke the connection off" in said


def test_an_app_without_a_list_reads_what_is_public_and_one_with_a_list_only_that(
    tmp_path: Path,
) -> None:
    file = tmp_path / "oneiros.toml"
    sites = SiteList(file)
    assert sites("assistant") == ["*"]
    assert sites.given("assistant") is None
    file.write_text('searxng = "x"\n[apps.news]\negress = ["*.paper.example"]\n[apps.quiet]\n')
    assert (sites("assistant"), sites("quiet")) == (["*"], ["*"])
    assert sites("news") == ["*.paper.example"]
    file.write_text("[apps.news]\negress = []\n")
    assert sites("news") == []  # it is read again when a person changed it
    for wrong in ("[apps.news", "[apps]\nnews = 3", "apps = 3", "[apps.news]\negress = 3"):
        file.write_text(wrong)
        with pytest.raises(ToolError, match="nothing may be reached"):
            sites("news")
