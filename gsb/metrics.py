"""What a node tells about itself in numbers: every metric in one table, kept in a registry of the node's own.

Labels are bounded: services, systems and agencies are those of the catalogue and everything else is ``other``; codes,
states and routes come from closed lists. No text of a caller or of a core system becomes a label. Series exist from the
start, so that a first event is seen as a rise from zero. Counts are kept in memory: a crash begins them anew, as a
reader of counters expects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from threading import Lock
from typing import Literal, TypeVar, cast

from prometheus_client import ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family

from gsb import __version__
from gsb.counts import Number, Spread, family
from gsb.errors import TABLE as PROBLEMS
from gsb.model import FINAL, State

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"
"""The label of whatever the catalogue, or the list in question, does not name."""
CLASSES = ("2xx", "3xx", "4xx", "5xx")
"""Classes of HTTP status that the bus answers with; it never redirects."""
RESULTS = ("answered", "refused", "unavailable", "broken", "given_up")
"""How a call on an adapter can end."""
UNCOSIGNED = ("unreachable", "refused", "unsound", "files", "contradiction")
"""Why a witness does not cosign: no answer, a refusal, an answer that cannot be, the log's own files, another log."""
ROLES = ("gateway", "worker", "recorder")
TRACED = ("sent", "failed", "dropped")
"""What became of a span: the collector has it, or did not take it, or too many waited."""
STILL = (State.HELD, State.UNKNOWN)
BREAKER = ("closed", "open", "half_open")
STANDING = (State.WAITING, State.HELD, State.UNKNOWN)
DURATIONS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5,
    1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0,
)  # fmt: skip
"""Upper bounds in seconds: close together where exchanges usually end, so that ``gsb top`` can tell a p99 from it."""
COMMITS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

Kind = Literal["counter", "gauge", "histogram"]
Labels = TypeVar("Labels", bound=tuple[str, ...])


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. ``buckets``: upper bounds of a histogram, in the unit that its name says."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


TABLE = (
    Metric("gsb_calls_total", "counter", "Calls answered, by route and class of status.", ("route", "status")),
    Metric("gsb_calls_in_flight", "gauge", "Calls being answered now, by port.", ("port",)),
    Metric("gsb_problems_total", "counter", "Answers that were a problem, by its code.", ("code",)),
    Metric(
        "gsb_agency_calls_total",
        "counter",
        "Calls on the API by agencies whose signature was good, by class of status.",
        ("agency", "status"),
    ),
    Metric("gsb_exchanges_accepted_total", "counter", "Exchanges accepted, each once.", ("service",)),
    Metric("gsb_exchanges_ended_total", "counter", "Exchanges ended, by final state.", ("service", "state")),
    Metric(
        "gsb_exchanges_stalled_total",
        "counter",
        "Exchanges that came to stand still: held, or unknown how they ended.",
        ("service", "state"),
    ),
    Metric("gsb_exchanges_performing", "gauge", "Exchanges that this node performs now.", ("service",)),
    Metric("gsb_exchange_seconds", "histogram", "From acceptance to the final state.", ("service",), DURATIONS),
    Metric("gsb_exchanges_standing", "gauge", "Exchanges in the store that wait, are held or unknown.", ("state",)),
    Metric("gsb_adapter_calls_total", "counter", "Calls on adapters, by how they ended.", ("system", "result")),
    Metric("gsb_adapter_call_seconds", "histogram", "Duration of calls on adapters.", ("system",), DURATIONS),
    Metric(
        "gsb_system_places",
        "gauge",
        "Calls of the system that this node may have at once, of those that all workers together may have.",
        ("system",),
    ),
    Metric(
        "gsb_breaker_state",
        "gauge",
        "1 for the state in which the system's circuit breaker is; half_open: the next call is its probe.",
        ("system", "state"),
    ),
    Metric("gsb_store_commit_seconds", "histogram", "Duration of the store's commits.", (), COMMITS),
    Metric("gsb_store_commit_calls", "histogram", "Calls on the store that shared a commit.", (), SIZES),
    Metric("gsb_log_size", "gauge", "Entries of the open evidence log that have their place in it."),
    Metric("gsb_log_published_size", "gauge", "Entries of the open evidence log under its published checkpoint."),
    Metric("gsb_log_backlog_entries", "gauge", "Entries committed and not yet published."),
    Metric("gsb_log_backlog_seconds", "gauge", "Age of the oldest entry that is not yet published; 0 without one."),
    Metric(
        "gsb_witness_cosigned_age_seconds",
        "gauge",
        "Since a published checkpoint had enough cosignatures (one, where none is needed); 0 without witnesses.",
    ),
    Metric(
        "gsb_witness_failures_total",
        "counter",
        "Requests that a witness did not cosign, by why.",
        ("witness", "reason"),
    ),
    Metric("gsb_sweeper_found_total", "counter", "Exchanges that were due and sent on by the sweeper."),
    Metric("gsb_reloads_total", "counter", "Reloads of the configuration: taken up or refused.", ("result",)),
    Metric(
        "gsb_key_set_age_seconds",
        "gauge",
        "Since the keys that the agency publishes were last known to be these; infinite before the first time.",
        ("agency",),
    ),
    Metric(
        "gsb_key_ends_timestamp_seconds",
        "gauge",
        "Unix time until which the bus has a key to sign with, or its certificate counts; infinite without an end.",
        ("key",),
    ),
    Metric("gsb_system_info", "gauge", "1 for each core system of the catalogue in force.", ("system",)),
    Metric("gsb_catalogue_info", "gauge", "1 for the digest of the catalogue in force.", ("digest",)),
    Metric("gsb_role", "gauge", "1 for each role that this node plays, 0 for the others.", ("role",)),
    Metric("gsb_recorder_at_work", "gauge", "1 while this node keeps the evidence log; 0 while it stands by."),
    Metric("gsb_clock_offset_seconds", "gauge", "By how much this node's clock is ahead of the store's."),
    Metric(
        "gsb_trace_spans_total",
        "counter",
        "Spans of traces: sent; failed, as the collector did not take them; dropped, as too many waited.",
        ("result",),
    ),
    Metric("gsb_info", "gauge", "1 for the version of the program.", ("version",)),
)
"""Every metric of the bus. Beside them stand the ``process_*`` metrics of prometheus_client: memory, time, files."""
BUCKETS = {metric.name: metric.buckets for metric in TABLE}


@dataclass(frozen=True, slots=True)
class ServiceMeter:
    """What is counted of one service, ready to be counted."""

    accepted: Number
    performing: Number
    _seconds: Spread
    _states: Mapping[State, Number]

    def ended(self, state: State, seconds: float) -> None:
        """One has ended, so many seconds after it was accepted. Clocks may be stepped back: never less than none."""
        self._states[state].inc()
        self._seconds.observe(max(seconds, 0.0))

    def stalled(self, state: State) -> None:
        """One is held or unknown from now on."""
        self._states[state].inc()


@dataclass(frozen=True, slots=True)
class SystemMeter:
    """What is counted of one system, ready to be counted."""

    _seconds: Spread
    _results: Mapping[str, Number]

    def called(self, result: str, seconds: float) -> None:
        """Its adapter was called, with one of ``RESULTS``."""
        self._results[result].inc()
        self._seconds.observe(seconds)


class Metrics:
    """One node's numbers. Counted in the event loop, commits in the store's thread; ``text`` may run in any."""

    def __init__(self, routes: Iterable[str] = ()) -> None:
        self._series: dict[str, dict[tuple[str, ...], Number | Spread]] = {metric.name: {} for metric in TABLE}
        self._in_flight: list[tuple[Number, Callable[[], int]]] = []
        self._places: Callable[[], Mapping[str, int]] = dict
        self._key_sets: Callable[[], Mapping[str, float]] = dict
        self._key_ends: Callable[[], Mapping[str, float]] = dict
        self._lock = Lock()
        self._process = ProcessCollector(registry=None)
        self._services: dict[str, ServiceMeter] = {OTHER: self._service(OTHER)}
        self._systems: dict[str, SystemMeter] = {OTHER: self._system(OTHER)}
        self._agencies: dict[str, dict[int, Number]] = {OTHER: self._classes("gsb_agency_calls_total", OTHER)}
        self._routes: dict[str, dict[int, Number]] = {OTHER: self._classes("gsb_calls_total", OTHER)}
        self._codes = {code: self._number("gsb_problems_total", code) for code in (*PROBLEMS, OTHER)}
        self._commits = self._spread("gsb_store_commit_seconds")
        self._commit_calls = self._spread("gsb_store_commit_calls")
        self._recorded = [
            self._number(f"gsb_log_{each}") for each in ("size", "published_size", "backlog_entries", "backlog_seconds")
        ]
        self._cosigned_age = self._number("gsb_witness_cosigned_age_seconds")
        self.witnesses([OTHER])
        self._found = self._number("gsb_sweeper_found_total")
        self._reloads = {each: self._number("gsb_reloads_total", each) for each in ("taken_up", "refused")}
        self._offset = self._number("gsb_clock_offset_seconds")
        self._at_work = self._number("gsb_recorder_at_work")
        self._traced = {each: self._number("gsb_trace_spans_total", each) for each in TRACED}
        self.plays(())
        self._number("gsb_info", __version__).set(1)

    def _number(self, name: str, *labels: str) -> Number:
        return cast(Number, self._series[name].setdefault(labels, Number()))

    def _spread(self, name: str, *labels: str) -> Spread:
        return cast(Spread, self._series[name].setdefault(labels, Spread(BUCKETS[name])))

    def _classes(self, name: str, of: str) -> dict[int, Number]:
        return {int(each[0]): self._number(name, of, each) for each in CLASSES}

    def _service(self, service: str) -> ServiceMeter:
        ended, stalled = "gsb_exchanges_ended_total", "gsb_exchanges_stalled_total"
        states = {state: self._number(ended, service, state) for state in State if state in FINAL}
        states |= {state: self._number(stalled, service, state) for state in STILL}
        return ServiceMeter(
            self._number("gsb_exchanges_accepted_total", service),
            self._number("gsb_exchanges_performing", service),
            self._spread("gsb_exchange_seconds", service),
            states,
        )

    def _system(self, system: str) -> SystemMeter:
        results = {each: self._number("gsb_adapter_calls_total", system, each) for each in RESULTS}
        return SystemMeter(self._spread("gsb_adapter_call_seconds", system), results)

    # --- what is known, and so may be a label

    def known(self, digest: str, *, services: Iterable[str], systems: Iterable[str], agencies: Iterable[str]) -> None:
        """What the catalogue in force names. What an earlier one named keeps its series until the node stops."""
        for service in services:
            self._services[service] = self._service(service)
        own = list(systems)
        for system in own:
            self._systems[system] = self._system(system)
        for agency in agencies:
            self._agencies[agency] = self._classes("gsb_agency_calls_total", agency)
        with self._lock:
            self._set("gsb_catalogue_info", {(digest,): 1})
            self._set("gsb_system_info", {(system,): 1 for system in own})

    def serve(self, port: str, routes: Iterable[str], in_flight: Callable[[], int]) -> None:
        """A port of this node: the routes that it answers, and how to learn how many calls are in flight there."""
        for route in routes:
            self._routes[route] = self._classes("gsb_calls_total", route)
        self._in_flight.append((self._number("gsb_calls_in_flight", port), in_flight))

    def call(self, places: Callable[[], Mapping[str, int]]) -> None:
        """How to learn how many calls of each system this node may have at once."""
        self._places = places

    def publish(self, key_sets: Callable[[], Mapping[str, float]]) -> None:
        """How to learn how old the key set of each agency is that publishes one."""
        self._key_sets = key_sets

    def end(self, key_ends: Callable[[], Mapping[str, float]]) -> None:
        """How to learn when the bus's keys (``bus``) and its ``certificate`` end, as unix time."""
        self._key_ends = key_ends

    # --- counting

    def service(self, service: str) -> ServiceMeter:
        return self._services.get(service) or self._services[OTHER]

    def system(self, system: str) -> SystemMeter:
        return self._systems.get(system) or self._systems[OTHER]

    def answered(self, route: str | None, status: int, code: str | None, agency: str | None) -> None:
        """A call was answered. ``code``: of the problem, if it was one; ``agency``: whose signature was good."""
        kind = status // 100
        (self._routes.get(route or OTHER) or self._routes[OTHER])[kind].inc()
        if code is not None:
            (self._codes.get(code) or self._codes[OTHER]).inc()
        if agency is not None:
            (self._agencies.get(agency) or self._agencies[OTHER])[kind].inc()

    def committed(self, calls: int, seconds: float) -> None:
        """The store committed so many calls together."""
        self._commit_calls.observe(calls)
        self._commits.observe(seconds)

    def recorded(self, size: int, published: int, entries: int, age: float) -> None:
        """How the evidence log stands, and how many entries it still lacks, the oldest of them so many seconds old."""
        for gauge, value in zip(self._recorded, (size, published, entries, age), strict=True):
            gauge.set(value)

    def witnesses(self, names: Iterable[str]) -> None:
        """The witnesses of the log, by their names in the configuration, which stay until a restart."""
        for name, reason in product(names, UNCOSIGNED):
            self._number("gsb_witness_failures_total", name, reason)

    def witness_failed(self, name: str, reason: str) -> None:
        """A witness did not cosign, with one of ``UNCOSIGNED``."""
        self._number("gsb_witness_failures_total", name, reason).inc()

    def cosigned(self, age: float) -> None:
        """So many seconds ago a published checkpoint had enough cosignatures."""
        self._cosigned_age.set(age)

    def plays(self, roles: Collection[str]) -> None:
        """The roles of this node, of ``ROLES``."""
        for role in ROLES:
            self._number("gsb_role", role).set(role in roles)

    def at_work(self, now: bool) -> None:
        """Whether this node's recorder keeps the log now."""
        self._at_work.set(now)

    def clock_off(self, seconds: float) -> None:
        """This node's clock is so far ahead of the store's."""
        self._offset.set(seconds)

    def swept(self, found: int) -> None:
        self._found.inc(found)

    def traced(self, result: str, spans: int) -> None:
        """So many spans came to one of ``TRACED``; each of these is counted by a thread of its own."""
        self._traced[result].inc(spans)

    def reloaded(self, *, taken_up: bool) -> None:
        self._reloads["taken_up" if taken_up else "refused"].inc()

    # --- telling

    def text(self, breakers: Mapping[str, str], standing: Mapping[State, int] | None) -> bytes:
        """Everything in Prometheus' text format, ``CONTENT_TYPE``. ``standing`` None: the store cannot be asked.

        Takes milliseconds, more with many services: not to be called in the event loop.
        """
        known = {} if standing is None else {(str(state),): standing.get(state, 0) for state in STANDING}
        with self._lock:
            self._set(
                "gsb_breaker_state", {(of, each): each == now for of, now in breakers.items() for each in BREAKER}
            )
            self._set("gsb_system_places", {(of,): now for of, now in self._places().items()})
            self._set("gsb_key_set_age_seconds", {(of,): age for of, age in self._key_sets().items()})
            self._set("gsb_key_ends_timestamp_seconds", {(of,): end for of, end in self._key_ends().items()})
            self._set("gsb_exchanges_standing", known)
            for number, now in self._in_flight:
                number.set(now())
            return generate_latest(self)

    def collect(self) -> Iterator[Family]:
        """Every metric with its series, for prometheus_client."""
        for metric in TABLE:
            yield family(metric.name, metric.kind, metric.help, metric.labels, self._series[metric.name])
        yield from self._process.collect()

    def _set(self, name: str, values: Mapping[Labels, float]) -> None:
        """Let the gauge show these values and no others; the lock is held."""
        self._series[name].clear()
        for labels, value in values.items():
            self._number(name, *labels).set(value)


def metrics_table() -> str:
    """Every metric in Markdown, for the manual."""
    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in TABLE
    )
    return "\n".join(["| metric | kind | labels | what it says |", "|---|---|---|---|", *rows])
