"""Files of a model hub, over HTTPS: what one is, and its bytes, with resume.

The address is Hugging Face's; `ONEIROS_HUB` names a mirror with the same paths.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from oneiros.errors import DownloadError
from oneiros.model.partial import PartialFile
from oneiros.model.sources import HubFile

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_FRUITLESS_ATTEMPTS = 4  # in a row, none of which brought a byte
_FIRST_PAUSE = 0.5  # seconds before the second attempt; doubles with every fruitless one
_REDIRECTS = 5
_NO_CONNECTION = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    httpx.TooManyRedirects,
)


@dataclass(frozen=True, slots=True)
class HubEntry:
    """What the hub itself says about a file."""

    bytes: int
    sha256: str | None  # None: the hub keeps it outside large-file storage and knows no SHA-256


def hub_address() -> str:
    """The base address of the hub, without a trailing slash."""
    return (os.environ.get("ONEIROS_HUB") or "https://huggingface.co").rstrip("/")


def _url(file: HubFile) -> str:
    path = "/".join((file.repository, "resolve", file.revision, file.file))
    return f"{hub_address()}/{quote(path)}"


def describe(file: HubFile) -> HubEntry:
    """Ask the hub for a file's length and SHA-256 without fetching it; DownloadError.

    Only the hub's own answers are read: for a large file it redirects to a storage host and names
    size and hash in headers of the redirect (`X-Linked-Size`, `X-Linked-Etag`).
    """
    url = httpx.URL(_url(file))
    try:
        with httpx.Client(timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"}) as client:
            for _ in range(_REDIRECTS):
                response = client.head(url)
                target = url.join(response.headers.get("Location", ""))
                if not response.has_redirect_location or not _same_origin(url, target):
                    break
                url = target
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(_unreachable(error)) from error
    if response.status_code >= 400:
        raise DownloadError(_refusal(response.status_code))
    size = response.headers.get("X-Linked-Size")
    if size is None and response.is_success:
        size = response.headers.get("Content-Length")
    if size is None or not size.isdecimal():
        raise DownloadError("the hub does not say how large the file is")
    # Git objects outside large-file storage have a SHA-1 here, which does not match.
    etag = re.fullmatch(r'(?:W/)?"?([0-9a-f]{64})"?', response.headers.get("X-Linked-Etag", ""))
    return HubEntry(bytes=int(size), sha256=etag[1] if etag else None)


def download(file: HubFile, part: PartialFile, report: Callable[[int], None]) -> None:
    """Fetch what `part` still lacks; `report` is called with the number of bytes there are.

    A connection that breaks is taken up again where it broke. A hub that cannot be reached at all
    fails at once. Raises DownloadError; `part` keeps what arrived.
    """
    start = part.size
    fruitless = 0
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
        while part.size < part.expected:
            before = part.size
            try:
                _attempt(client, file, part, report)
                reason = f"the hub sent only {part.size:,} of {part.expected:,} bytes"
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500 and error.response.status_code != 429:
                    raise DownloadError(_refusal(error.response.status_code)) from error
                reason = _refusal(error.response.status_code)
            except _NO_CONNECTION as error:
                reason = _unreachable(error)
                if part.size == start:
                    raise DownloadError(reason) from error
            except httpx.TransportError as error:
                reason = _unreachable(error)
            fruitless = 0 if part.size > before else fruitless + 1
            if fruitless == _FRUITLESS_ATTEMPTS:
                raise DownloadError(reason)
            if part.size < part.expected:
                time.sleep(_FIRST_PAUSE * 2**fruitless)


def _attempt(
    client: httpx.Client, file: HubFile, part: PartialFile, report: Callable[[int], None]
) -> None:
    # Compression on the way would make byte ranges meaningless.
    headers = {"Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
    with client.stream("GET", _url(file), headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.truncate(0)  # the hub's file is shorter than what is here: start again
            return
        response.raise_for_status()
        start, total = _span(response)
        if total is not None and total != part.expected:
            raise DownloadError(f"the hub's file has {total:,} bytes, expected {part.expected:,}")
        if start > part.size:
            raise DownloadError(f"the hub sent bytes from {start:,} on, not from {part.size:,}")
        if start < part.size:
            part.truncate(start)
        # As it comes: a chunk size would hold back bytes, and a broken connection would lose them.
        for chunk in response.iter_raw():
            part.write(chunk)
            report(part.size)


def _span(response: httpx.Response) -> tuple[int, int | None]:
    """Offset of the first byte of a response's body, and the length of the whole file if known."""
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if span is None:
            raise DownloadError("the hub answered a byte range without saying which")
        return int(span[1]), None if span[2] == "*" else int(span[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None and length.isdecimal() else None


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _unreachable(error: Exception) -> str:
    reason = str(error) or type(error).__name__
    return f"{hub_address()} cannot be reached or broke off ({reason})"


def _refusal(status: int) -> str:
    meaning = {
        401: "the repository does not exist, or is private or gated",
        403: "the repository is private or gated",
        404: "no such repository, revision or file",
        429: "too many requests",
    }.get(status, "the hub refused" if status < 500 else "the hub is in trouble")
    return f"{meaning} (HTTP {status})"
