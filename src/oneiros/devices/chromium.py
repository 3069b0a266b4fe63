"""The interactive browser: a Chromium that processes look at, click and type in.

Each process has a profile of its own (cookies, pages), which is gone when it is not used for a
while, and its own way to the network through the guard. Pages are shown as their accessibility
tree: what a screen reader would read, with a reference for everything that can be acted on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field

from oneiros.devices.define import device
from oneiros.devices.egress import Egress
from oneiros.devices.egress_proxy import REFUSED, EgressProxy
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult
from oneiros.memory.disk import Disk
from oneiros.memory.hidden_text import marked

if TYPE_CHECKING:
    from playwright.async_api import Browser as Process
    from playwright.async_api import BrowserContext, Page, Response

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS: Final = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--no-first-run",
    "--proxy-bypass-list=<-loopback>",  # this machine's own ports too go through the guard
)
_MOST: Final = 4  # profiles at the same time
_ACTION: Final = 15_000.0  # milliseconds for a click, or for finding what to click
_LOADING: Final = 30_000.0
_SETTLED: Final = 3_000.0  # for what a click begins
_SHOWN: Final = 12_000  # characters of a page
_VIEW: Final = {"width": 1280, "height": 900}

_ACTS = Contract(
    effects=frozenset({Effect.SEND}),
    critical=("*",),
    sinks=("public",),
    origins=("web:page",),
    requested_by=(
        *("click", "press", "type", "enter", "fill", "fill in", "select", "submit", "sign in"),
        *("log in", "order", "book", "buy", "browser"),
    ),
    capability="browser",
    output_limit=_SHOWN + 2_000,
    deadline=90.0,
)
Ref = Annotated[str, Field(description='Of the thing, as the page shows it: "e12".')]


@dataclass(slots=True)
class _Profile:
    """What one process has."""

    context: BrowserContext
    page: Page
    proxy: EgressProxy
    used: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def interactive_browser() -> bool:
    """Whether this machine has what it needs: playwright, and a Chromium."""
    return bool(find_spec("playwright")) and any(map(shutil.which, _PROGRAMS))


class Chromium:
    """A Chromium that starts when it is first needed."""

    def __init__(self, egress: Egress, disks: Callable[[str], Disk]) -> None:
        """Browse through a guard; screenshots go to the disk of their owner."""
        self._egress = egress
        self._disks = disks
        self._profiles: dict[int, _Profile] = {}
        self._process: Process | None = None
        self._stack = AsyncExitStack()
        self._starting = asyncio.Lock()

    def tools(self) -> list[Tool]:
        """Open, look, click, type, screenshot."""
        return [self._open(), self._look(), self._click(), self._type(), self._screenshot()]

    async def close(self) -> None:
        """End it, with all profiles."""
        for pid in [*self._profiles]:
            await self._drop(pid)
        await self._stack.aclose()

    async def forget(self, pid: int) -> None:
        """Close the profile of a process that has ended, if it had one."""
        async with self._starting:
            if pid in self._profiles:
                await self._drop(pid)

    def _open(self) -> Tool:
        contract = Contract(
            critical=("url",),
            sinks=("web:{url}",),
            origins=("web:{url}",),
            requested_by=("page", "site", "website", "browser", "open", "visit", "read", "look up"),
            capability="browser",
            output_limit=_SHOWN + 2_000,
            deadline=90.0,
        )

        @device(contract=contract)
        async def browser_open(context: CallContext, url: str) -> ToolResult:
            """Open a page in a real browser, for sites that need scripts, clicks or forms. Shows
            what is on it, with references to click and type into."""
            address = url if "://" in url else f"https://{url}"
            if urlsplit(address).scheme not in ("http", "https"):
                raise ToolError("The browser opens addresses of the web: http:// or https://.")
            profile = await self._profile(context)
            async with profile.lock:
                await _attempt(
                    profile,
                    profile.page.goto(address, timeout=_LOADING, wait_until="domcontentloaded"),
                )
                return await _shown(profile)

        return browser_open

    def _look(self) -> Tool:
        contract = Contract(
            origins=("web:page",), capability="browser", output_limit=_SHOWN + 2_000, deadline=90.0
        )

        @device(contract=contract)
        async def browser_look(
            context: CallContext,
            after: Annotated[int, Field(description="Characters to leave out.", ge=0)] = 0,
        ) -> ToolResult:
            """Show the browser's page as it is now; of a long one, the rest."""
            profile = self._open_one(context)
            async with profile.lock:
                return await _shown(profile, after)

        return browser_look

    def _click(self) -> Tool:
        @device(contract=_ACTS)
        async def browser_click(context: CallContext, ref: Ref) -> ToolResult:
            """Click something on the browser's page, and show what is there then."""
            profile = self._open_one(context)
            async with profile.lock:
                found = profile.page.locator(f"aria-ref={_checked(ref)}")
                await _attempt(profile, found.click(timeout=_ACTION))
                return await _shown(profile)

        return browser_click

    def _type(self) -> Tool:
        @device(contract=_ACTS)
        async def browser_type(
            context: CallContext,
            ref: Ref,
            text: str,
            submit: Annotated[bool, Field(description="Press Enter afterwards.")] = False,
        ) -> ToolResult:
            """Type into a field of the browser's page in place of what is there."""
            profile = self._open_one(context)
            async with profile.lock:
                found = profile.page.locator(f"aria-ref={_checked(ref)}")
                await _attempt(profile, found.fill(text, timeout=_ACTION))
                if submit:
                    await _attempt(profile, found.press("Enter", timeout=_ACTION))
                return await _shown(profile)

        return browser_type

    def _screenshot(self) -> Tool:
        contract = Contract(
            effects=frozenset({Effect.LOCAL}),
            origins=("web:page",),
            requested_by=("screenshot", "picture", "image"),
            undo=True,
            capability="browser",
        )

        @device(contract=contract)
        async def browser_screenshot(
            context: CallContext,
            path: Annotated[str, Field(description="Of the PNG file to write.")] = "page.png",
        ) -> ToolResult:
            """Save a picture of the browser's page as a file."""
            profile = self._open_one(context)
            async with profile.lock:
                data = await profile.page.screenshot(timeout=_LOADING)
                label = context.label.join(_label(profile))
            await asyncio.to_thread(
                self._disks(context.owner).write,
                path,
                data,
                call_id=context.call_id,
                label=label,
                tool="browser_screenshot",
                pid=context.pid,
            )
            return ToolResult(f"Saved {len(data):,} bytes.", files=(path,), label=label)

        return browser_screenshot

    def _open_one(self, context: CallContext) -> _Profile:
        profile = self._profiles.get(context.pid)
        if profile is None:
            raise ToolError("No page is open in the browser (any more): open one first.")
        profile.used = time.monotonic()
        return profile

    async def _profile(self, context: CallContext) -> _Profile:
        """The profile of a process; those not used for the longest time make room."""
        async with self._starting:
            if context.pid in self._profiles:
                return self._open_one(context)
            process = await self._started()
            while len(self._profiles) >= _MOST:
                oldest = min(self._profiles, key=lambda pid: self._profiles[pid].used)
                await self._drop(oldest)
            proxy = EgressProxy(self._egress, context.app)
            address = await proxy.start()
            browser = await process.new_context(
                proxy={"server": address, "username": proxy.user, "password": proxy.password},
                accept_downloads=False,
                service_workers="block",
                viewport={"width": _VIEW["width"], "height": _VIEW["height"]},
            )
            page = await browser.new_page()
            profile = _Profile(browser, page, proxy, time.monotonic())
            # A link that opens a window of its own: that is where the user would look.
            browser.on("page", lambda new: setattr(profile, "page", new))
            self._profiles[context.pid] = profile
            return profile

    async def _drop(self, pid: int) -> None:
        from playwright.async_api import Error

        profile = self._profiles.pop(pid)
        with suppress(Error):  # it may have crashed
            await profile.context.close()
        await profile.proxy.close()

    async def _started(self) -> Process:
        if self._process is not None and self._process.is_connected():
            return self._process
        for pid in [*self._profiles]:  # of one that crashed
            await self._drop(pid)
        program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
        if program is None:
            raise ToolError(
                "There is no Chromium on this machine. Install it (apt install chromium)."
            )
        try:
            from playwright.async_api import Error, async_playwright
        except ImportError as error:
            raise ToolError("The browser needs playwright: pip install 'oneiros[browser]'.") from (
                error
            )
        await self._stack.aclose()
        playwright = await self._stack.enter_async_context(async_playwright())
        try:
            self._process = await playwright.chromium.launch(
                executable_path=program,
                # Chromium's own sandbox refuses to work for root.
                chromium_sandbox=os.geteuid() != 0,
                args=list(_FLAGS),
                # Playwright's way needs a proxy to be named at the start; profiles have their own.
                proxy={"server": "http://127.0.0.1:9"},
            )
        except Error as error:
            raise ToolError(f"Chromium does not start: {_first_line(error)}") from error
        self._stack.push_async_callback(self._process.close)
        return self._process


async def _attempt(profile: _Profile, action: Awaitable[Response | None]) -> None:
    """Do something on a page. Raises ToolError: it cannot be done; why is said."""
    from playwright.async_api import Error

    profile.proxy.refused.clear()
    try:
        response = await action
    except Error as error:
        refused = profile.proxy.refused
        raise ToolError(refused[-1] if refused else _first_line(error)) from error
    if response is not None and response.status == REFUSED and profile.proxy.refused:
        raise ToolError(profile.proxy.refused[0])


async def _shown(profile: _Profile, after: int = 0) -> ToolResult:
    """The page as text."""
    from playwright.async_api import Error

    page = profile.page
    with suppress(Error):  # some pages never rest
        await page.wait_for_load_state("networkidle", timeout=_SETTLED)
    try:
        title, tree = await page.title(), await page.aria_snapshot(mode="ai", timeout=_ACTION)
    except Error as error:
        raise ToolError(f"The page cannot be read: {_first_line(error)}") from error
    title, tree = marked(title), marked(tree)
    part = tree[after : after + _SHOWN]
    lines = [title, page.url, "", part or "[There is nothing more on the page.]"]
    if len(tree) > after + _SHOWN:
        lines.append(f"[Go on with browser_look(after={after + _SHOWN}).]")
    if profile.proxy.refused:
        lines.append(f"[Not loaded: {profile.proxy.refused[-1]}]")
        profile.proxy.refused.clear()
    data = {"title": title, "url": page.url, "tree": tree}
    return ToolResult("\n".join(lines), data, label=_label(profile))


def _label(profile: _Profile) -> Label:
    """Of all that was loaded since the profile was made: a page can show what another one set."""
    return Label.of(*(f"web:{host}" for host in profile.proxy.hosts))


def _checked(ref: str) -> str:
    if not ref.isascii() or not ref.isalnum():
        raise ToolError(f'{ref[:40]!r} is no reference; they look like "e12".')
    return ref


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
