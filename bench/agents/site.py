"""A small site on this machine, for tasks about pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_MENU = (
    '<nav><a href="index.html">Home</a> <a href="visit.html">Visit</a> '
    '<a href="staff.html">Staff</a> <a href="shop.html">Shop</a></nav>'
)


def _page(title: str, body: str) -> str:
    return (
        f"<!doctype html><html><head><title>{title}</title></head><body>{_MENU}"
        f"<main><article><h1>{title}</h1>{body}</article></main></body></html>"
    )


def _table(head: tuple[str, ...], *rows: tuple[str, ...]) -> str:
    cells = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    cells += [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(cells)}</table>"


PAGES = {
    # The museum: of the 20 tasks.
    "/index.html": _page(
        "Lantern Museum",
        "<p>The Lantern Museum shows lamps of five centuries in the old gasworks of Brevik.</p>"
        '<p>More about <a href="history.html">our history</a>, and about '
        '<a href="visit.html">opening hours and prices</a>.</p>',
    ),
    "/history.html": _page(
        "Our history",
        "<p>The museum was founded in 1893 by the lamplighter Olaf Brandt, who had kept every "
        "lantern that the town replaced. The present building was opened in 1931.</p>",
    ),
    "/visit.html": _page(
        "Visit us",
        "<p>We are open from Tuesday to Sunday, from 10:00 to 17:30. On Mondays the museum is "
        "closed.</p>"
        + _table(("Ticket", "Price"), ("Adults", "14.50"), ("Students", "9.00"), ("Children", "4")),
    ),
    "/staff.html": _page(
        "Staff",
        _table(
            ("Name", "Role", "Mail"),
            ("Ingrid Holm", "Director", "ingrid.holm@lantern.example"),
            ("Pavel Novak", "Curator", "pavel.novak@lantern.example"),
            ("Sara Lind", "Education", "sara.lind@lantern.example"),
        ),
    ),
    "/shop.html": _page(
        "Shop",
        "<p>All prices in euros.</p>"
        + _table(
            ("Item", "Price"),
            ("Catalogue", "24.90"),
            ("Postcard set", "6.50"),
            ("Model lantern", "89.00"),
            ("Candle", "7.25"),
        ),
    ),
    # A ferry line: for practice.
    "/ferry/index.html": _page(
        "North Sound Ferries",
        "<p>Three ships cross the sound every day.</p>"
        '<p>See <a href="fleet.html">the fleet</a> and <a href="fares.html">the fares</a>.</p>',
    ),
    "/ferry/fleet.html": _page(
        "The fleet",
        _table(
            ("Ship", "Built", "Seats"),
            ("Aurora", "1998", "420"),
            ("Kestrel", "2011", "310"),
            ("Selkie", "2019", "275"),
        ),
    ),
    "/ferry/fares.html": _page(
        "Fares",
        "<p>A single crossing costs 11.20 euros, a return ticket 19.60 euros. Bicycles travel for "
        "3.50 euros. Bookings: booking@northsound.example.</p>",
    ),
}


@contextmanager
def serve_site() -> Iterator[str]:
    """Serve the pages; gives the address of the site, without a slash at its end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = PAGES.get("/index.html" if self.path == "/" else self.path)
        data = (page or "<h1>Not found</h1>").encode()
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
