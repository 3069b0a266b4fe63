"""The laws of labels: a lattice under join, and an order that it respects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oneiros.kernel.label import PUBLIC, Label, is_trusted, join_all

NAMES = st.frozensets(
    st.sampled_from(["user", "system", "app:a", "tool:t", "web:x.org", "mcp:s", "file:f"])
)
LABELS = st.builds(
    Label, origins=NAMES, readers=st.none() | st.frozensets(st.sampled_from(["me", "you", "it"]))
)


@given(LABELS, LABELS, LABELS)
def test_join_is_the_least_upper_bound(a: Label, b: Label, c: Label) -> None:
    assert a.join(b) == b.join(a)
    assert a.join(b).join(c) == a.join(b.join(c)) == a.join(b, c) == join_all([a, b, c])
    assert a.join(a) == a == a.join(PUBLIC)
    assert a.flows_to(a.join(b)) and b.flows_to(a.join(b))
    if a.flows_to(c) and b.flows_to(c):
        assert a.join(b).flows_to(c)


@given(LABELS, LABELS, LABELS)
def test_flow_is_a_partial_order(a: Label, b: Label, c: Label) -> None:
    assert a.flows_to(a) and PUBLIC.flows_to(a)
    if a.flows_to(b) and b.flows_to(c):
        assert a.flows_to(c)
    if a.flows_to(b) and b.flows_to(a):
        assert a == b
    assert a.flows_to(b) == (a.join(b) == b)


@given(LABELS, LABELS)
def test_trust_and_readers_are_only_lost(a: Label, b: Label) -> None:
    both = a.join(b)
    assert both.trusted == (a.trusted and b.trusted)
    assert both.untrusted_origins == a.untrusted_origins | b.untrusted_origins
    for reader in ("me", "you", "it", "somebody"):
        assert both.readable_by(reader) == (a.readable_by(reader) and b.readable_by(reader))


def test_whom_we_trust() -> None:
    assert all(map(is_trusted, ["user", "system", "app:assistant", "tool:calculate"]))
    strangers = [
        "web:user",
        "mcp:x",
        "file:user",
        "mail:a@b.c",
        "model:gpt",
        "principal:x",
        "users",
    ]
    assert not any(map(is_trusted, strangers))
