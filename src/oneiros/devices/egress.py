"""The way out to the network: one guard that every device asks which reaches other machines.

A request goes to a host that its app may reach, at an address that was looked up once, checked and
then used (so that a name cannot point elsewhere the second time), and brings back a bounded number
of bytes in a bounded time. Redirects are requests of their own. Nothing is kept between requests:
no cookies, no connections, no credentials.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import httpx

from oneiros.kernel.tools import ToolError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]  # host, port -> addresses; OSError

SYSTEM_FILE: Final = "oneiros.toml"  # of a data folder
_PORTS: Final = {"http": 80, "https": 443}
_CODINGS: Final = ("", "identity", "gzip", "deflate")  # one of them: several are bombs
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_ADDRESSES: Final = 3  # of a host that are tried
# Addresses of IPv6 with one of IPv4 in them, which could be any.
_EMBEDDING: Final = tuple(map(ipaddress.IPv6Network, ("2002::/16", "2001::/32")))
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_METADATA: Final = frozenset({"168.63.129.16"})  # public by its number; Azure's machines ask it


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a request may bring, and how long it may take."""

    bytes: int = 5_000_000
    seconds: float = 30.0
    redirects: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An answer."""

    url: str  # after redirects
    host: str  # of it
    content_type: str  # without parameters, in lower case; "": it does not say
    charset: str | None
    data: bytes


class Egress:
    """The guard. It holds nothing between requests."""

    def __init__(
        self,
        allowed: Callable[[str], Sequence[str]],
        *,
        where: str = "",
        limits: Limits | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        """Guard requests by lists of sites.

        A site is "example.org", "*.example.org" (hosts below that, not itself), "*" (every public
        host), or "127.0.0.1:8080": with a port it may have a private address too. Without one,
        the ports are those of HTTP and HTTPS.

        Args:
            allowed: the sites that an app may reach; asked for each request; may raise ToolError.
            where: where a person changes the list, for the message of a refusal.
            limits: of each request.
            resolve: looks addresses up; default: the system.
        """
        self._allowed = allowed
        self._where = where
        self._limits = limits or Limits()
        self._resolve = resolve or _system_resolve

    async def get(self, app: str, url: str, *, accept: Sequence[str] = ()) -> Fetched:
        """Fetch an address for an app.

        Args:
            app: on whose behalf.
            url: "https://" is assumed where it has no scheme.
            accept: content types that are wanted, such as "text/html", "text/*"; (): any.

        Raises:
            ToolError: it may not be fetched, or cannot be; the message says why and what to do.
        """
        target = _parsed(url)
        try:
            async with asyncio.timeout(self._limits.seconds):
                for _ in range(self._limits.redirects + 1):
                    answer = await self._one(app, target, accept)
                    if isinstance(answer, Fetched):
                        return answer
                    target = answer
        except TimeoutError as error:
            raise ToolError(
                f"{target.host} did not answer in {self._limits.seconds:g} seconds. Try again "
                "later, or another page."
            ) from error
        raise ToolError(f"{url} was redirected more than {self._limits.redirects} times.")

    async def _one(self, app: str, url: httpx.URL, accept: Sequence[str]) -> Fetched | httpx.URL:
        """One request's answer, or where it was redirected to."""
        addresses = await self.addresses(app, url)
        for n, address in enumerate(addresses, 1):
            try:
                return await self._request(url, address, accept)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if n == len(addresses):
                    raise ToolError(f"{url.host} cannot be reached ({error}).") from error
            except httpx.RequestError as error:
                what = str(error) or type(error).__name__
                raise ToolError(f"{url.host} broke the connection off ({what}).") from error
            except httpx.StreamError as error:
                raise ToolError(f"{url.host} sent what cannot be read ({error}).") from error
        raise ToolError(f"{url.host} has no address.")

    async def addresses(self, app: str, url: httpx.URL) -> Sequence[str]:
        """The addresses of a host, looked up now, where an app may reach it.

        Raises:
            ToolError: it may not, or there is no such host.
        """
        host = _host(url)
        port = _PORTS[url.scheme] if url.port is None else url.port
        private = self._permission(app, host, port)
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise ToolError(
                f"There is no host {host}, or its address cannot be looked up. Check the address."
            ) from error
        # One private address among public ones is what an attack looks like.
        inside = [address for address in addresses if not is_public(address)]
        if inside and not private:
            raise ToolError(
                f"{host} has the address {inside[0]} inside of this network, which may not be "
                f'reached. If it is meant to be, the person allows "{host}:{port}"{self._at}.'
            )
        return addresses[:_MOST_ADDRESSES]

    def _permission(self, app: str, host: str, port: int) -> bool:
        """Whether private addresses are allowed too.

        Raises:
            ToolError: the host is not allowed at all.
        """
        sites = [site.strip().lower() for site in self._allowed(app)]
        with_port = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if with_port in sites:
            return True
        if port in _PORTS.values() and any(_matches(site, host) for site in sites):
            return False
        usual = port in _PORTS.values()
        raise ToolError(
            f'The site {host if usual else with_port} may not be reached by "{app}". Use another '
            f"source, or ask the person to allow it{self._at}."
        )

    @property
    def _at(self) -> str:
        return f" in {self._where}" if self._where else ""

    async def _request(
        self, url: httpx.URL, address: str, accept: Sequence[str]
    ) -> Fetched | httpx.URL:
        host = _host(url)
        headers = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": "Oneiros (reads pages for a person)",
            "Accept": ", ".join((*accept, "*/*;q=0.1")),
            "Accept-Encoding": "gzip, deflate",
        }
        # A client of its own: a connection made for one name must not carry requests to another
        # that has the same address, and cookies must not be kept.
        async with (
            httpx.AsyncClient(verify=_tls(), trust_env=False, timeout=self._limits.seconds) as http,
            http.stream(
                "GET",
                url.copy_with(host=address),
                headers=headers,
                extensions={"sni_hostname": host},
                follow_redirects=False,
            ) as response,
        ):
            location = response.headers.get("location")
            if response.status_code in _REDIRECTS and location:
                return _redirected(url, location)
            _check_status(url, response)
            kind, charset = _content_type(response)
            if accept and kind and not any(_fits(kind, wanted) for wanted in accept):
                raise ToolError(
                    f"{url} is {kind}, which cannot be read here; wanted is {', '.join(accept)}."
                )
            data = await self._body(url, response)
            return Fetched(url=str(url), host=host, content_type=kind, charset=charset, data=data)

    async def _body(self, url: httpx.URL, response: httpx.Response) -> bytes:
        if response.headers.get("content-encoding", "").strip().lower() not in _CODINGS:
            raise ToolError(f"{url} is packed in a way that was not asked for.")
        said = response.headers.get("content-length", "")
        most = self._limits.bytes
        if said.isascii() and said.isdecimal() and int(said[:20]) > most:
            raise ToolError(f"{url} has {int(said[:20]):,} bytes; at most {most:,} are fetched.")
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > most:
                raise ToolError(f"{url} has more than {most:,} bytes; no more are fetched.")
        return bytes(data)


class SiteList:
    """Sites that apps may reach, as `oneiros.toml` says; it is read again when it changed.

    An app with a list, `[apps.NAME] egress = [...]`, may reach what is in it and nothing else; one
    without may read every public host.
    """

    def __init__(self, path: Path) -> None:
        """Read from a file, which need not exist."""
        self._path = path
        self._read: tuple[int, int] | None = None  # time and size of what was read
        self._lists: dict[str, list[str]] = {}

    def __call__(self, app: str) -> list[str]:
        """The sites that an app may reach. Raises ToolError: the file is malformed."""
        given = self.given(app)
        return ["*"] if given is None else given

    def given(self, app: str) -> list[str] | None:
        """The list of an app; None: it has none. Raises ToolError: the file is malformed."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        if self._read != (found.st_mtime_ns, found.st_size):
            try:
                self._lists = _egress_lists(tomllib.loads(self._path.read_text(encoding="utf-8")))
            # Not the list as it was: a person may just have taken something out of it.
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise ToolError(
                    f"{self._path} cannot be read ({error}). Until the person has mended it, "
                    "nothing may be reached."
                ) from error
            self._read = (found.st_mtime_ns, found.st_size)
        return self._lists.get(app)


def _egress_lists(content: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [str(site) for site in app["egress"]]
        for name, app in content.get("apps", {}).items()
        if "egress" in app
    }


def is_public(address: str) -> bool:
    """Whether an address is one of the public Internet, and of one machine."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        # What is not of these has other addresses in it, or is of a network that others are not in.
        elif ip not in _UNICAST or any(ip in network for network in _EMBEDDING):
            return False
    return ip.is_global and not ip.is_multicast and str(ip) not in _METADATA


def _matches(site: str, host: str) -> bool:
    if site.startswith("*."):
        return host.endswith(site[1:])
    return site in ("*", host)


def _parsed(text: str) -> httpx.URL:
    text = text.strip()
    try:
        url = httpx.URL(text if "://" in text else f"https://{text}")
    except (httpx.InvalidURL, TypeError) as error:
        raise ToolError(f'"{text[:100]}" is no address of a page: {error}.') from error
    return _checked(url)


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = _checked(url.join(location))
    except httpx.InvalidURL as error:
        raise ToolError(f"{url} is redirected to what is no address: {error}.") from error
    if url.scheme == "https" and target.scheme == "http":
        raise ToolError(f"{url} is redirected to {target}, which is not encrypted.")
    return target


def _checked(url: httpx.URL) -> httpx.URL:
    if url.scheme not in _PORTS or not url.host:
        raise ToolError(
            f'"{str(url)[:100]}" is no address of a page: such as "https://example.org/page".'
        )
    if url.userinfo:
        raise ToolError("An address with a name or password in it is not fetched.")
    return url.copy_with(fragment=None)


def _host(url: httpx.URL) -> str:
    """The host as it is looked up and compared: in lower case, and in ASCII."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def _check_status(url: httpx.URL, response: httpx.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    advice = {
        401: "It wants a login, which there is none of.",
        403: "It does not want to be read by programs; try another source.",
        404: "There is no such page; check the address, or search for it.",
        410: "The page was removed.",
        429: "It was asked too often; try again later.",
    }.get(status, "Try again later." if status >= 500 else "It cannot be read.")
    raise ToolError(f"{url} answered with status {status} {response.reason_phrase}. {advice}")


def _content_type(response: httpx.Response) -> tuple[str, str | None]:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind, response.charset_encoding


def _fits(kind: str, wanted: str) -> bool:
    return kind == wanted or (wanted.endswith("/*") and kind.startswith(wanted[:-1]))


async def _system_resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is too long
        raise OSError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than most requests."""
    return httpx.create_ssl_context()
