"""What Prometheus can read: counts of requests, times of replies, the state of the engines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oneiros.engine.requests import EngineStatistics
from oneiros.server.scanning import ScanCounts

CONTENT_TYPE = CONTENT_TYPE_LATEST

_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_INTER_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

# name, field of EngineStatistics, what it says
_GAUGES = (
    ("requests_waiting", "waiting", "Requests that have no sequence yet."),
    ("sequences_running", "running", "Sequences that are being extended."),
    ("sequences_parked", "parked", "Sequences that had to make room."),
    ("kv_page_bytes", "page_bytes", "Bytes of a KV page."),
    ("kv_pages_limit", "pages_limit", "KV pages that fit the memory given."),
    ("kv_pages_used", "pages_used", "KV pages held by sequences, cached ones included."),
    ("kv_pages_cached", "pages_cached", "KV pages held by the prefix cache."),
    ("kv_pages_stored", "pages_stored", "KV pages on disk."),
)
_COUNTERS = (
    ("prompt_tokens", "prompt_tokens", "Tokens of prompts."),
    ("prefix_hit_tokens", "cached_tokens", "Tokens of prompts found in the prefix cache."),
    ("generated_tokens", "generated_tokens", "Tokens generated."),
    ("drafted_tokens", "drafted_tokens", "Tokens drafted by speculation."),
    ("accepted_tokens", "accepted_tokens", "Drafted tokens that were right."),
    ("steps", "steps", "Steps of the engine."),
    ("rows", "rows", "Tokens computed in all steps; divided by steps: the mean batch."),
    ("busy_seconds", "busy_seconds", "Time in steps, sampling included."),
    ("idle_seconds", "idle_seconds", "Time with nothing to do."),
    ("preemptions", "preemptions", "Sequences that had to make room for others."),
    ("restarts", "restarts", "Restarts of the engine's process."),
)

_log = logging.getLogger("oneiros.requests")


class Metrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "oneiros_requests",
            "Answers by endpoint and status; 499: the client went away.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self.first_token = Histogram(
            "oneiros_time_to_first_token_seconds",
            "From the request to its first token.",
            ("model",),
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.inter_token = Histogram(
            "oneiros_inter_token_seconds",
            "Between one piece of a reply and the next.",
            ("model",),
            buckets=_INTER_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.embedded_tokens = Counter(
            "oneiros_embedded_tokens", "Tokens embedded.", ("model",), registry=self.registry
        )
        self._engines = _Engines()
        self.registry.register(self._engines)

    def count_scans(self, scans: ScanCounts) -> None:
        """Tell what a system's detectors saw, too."""
        self.registry.register(_Scans(scans))

    def page(self, statistics: Mapping[str, EngineStatistics]) -> bytes:
        """All metrics in Prometheus' text format; `statistics` by the name of the model."""
        self._engines.statistics = statistics
        return generate_latest(self.registry)


class _Engines(Collector):
    """The engines' own numbers, as they were when they were asked last."""

    def __init__(self) -> None:
        self.statistics: Mapping[str, EngineStatistics] = {}

    def collect(self) -> Iterator[Metric]:
        for name, field, text in _GAUGES:
            gauge = GaugeMetricFamily(f"oneiros_{name}", text, labels=("model",))
            for model, statistics in self.statistics.items():
                gauge.add_metric((model,), getattr(statistics, field))
            yield gauge
        for name, field, text in _COUNTERS:
            counter = CounterMetricFamily(f"oneiros_{name}", text, labels=("model",))
            for model, statistics in self.statistics.items():
                counter.add_metric((model,), getattr(statistics, field))
            yield counter


class _Scans(Collector):
    """What detectors saw in the results of calls."""

    def __init__(self, scans: ScanCounts) -> None:
        self._scans = scans

    def collect(self) -> Iterator[Metric]:
        text = "Payloads seen in results from outside, by kind."
        findings = CounterMetricFamily("oneiros_findings", text, labels=("kind",))
        for kind, number in self._scans.findings.items():
            findings.add_metric((kind,), number)
        yield findings
        for name, number, text in (
            ("found_instructions", self._scans.instructions, "Phrases in them to an assistant."),
            ("scanned_results", self._scans.results, "Results that detectors looked at."),
            ("unscanned_results", self._scans.left_out, "Results that came too fast for them."),
        ):
            yield CounterMetricFamily(f"oneiros_{name}", text, value=number)


class Observation:
    """Counts and logs every answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        """`paths`: of endpoints; others have no count of their own, for anybody can invent them."""
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # what nginx writes for a client that did not wait

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except asyncio.CancelledError:
            raise
        except BaseException:
            status = 500
            raise
        finally:
            path = getattr(scope.get("route"), "path", scope["path"])
            endpoint = path if path in self._paths else "other"
            self._metrics.requests.labels(endpoint, str(status)).inc()
            principal = scope.get("state", {}).get("principal")
            seconds = time.perf_counter() - started
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 4),
                "principal": principal.name if principal else None,
            }
            _log.info("%(method)s %(path)s %(status)d %(seconds).3f s", fields, extra=fields)
