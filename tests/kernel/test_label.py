"""The laws of labels: a lattice under join, and an order that it respects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.kernel.label import (
    PUBLIC,
    TRUSTED_KINDS,
    UNTRUSTED_KINDS,
    Label,
    is_trusted,
    join_all,
)

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
    assert all(map(is_trusted, ["user", "system", "app:assistant", "tool:calculate", "tool:a:b"]))
    strangers = [
        "web:user",
        "mcp:x",
        "file:user",
        "mail:a@b.c",
        "model:gpt",
        "principal:x",
        "users",
        "web:x.org:tool:y",
        "mail:app:x",
    ]
    assert not any(map(is_trusted, strangers))


def test_one_untrusted_origin_is_enough() -> None:
    ours = ["user", "system", "app:a", "tool:t"]
    assert Label.of(*ours).trusted and Label.of(*ours).untrusted_origins == frozenset()
    mixed = Label.of(*ours, "web:x.org", "mail:a@b.c")
    assert not mixed.trusted
    assert mixed.untrusted_origins == {"web:x.org", "mail:a@b.c"}


def test_kinds_of_origins_that_can_be_named() -> None:
    assert set(TRUSTED_KINDS) == {"app", "tool"}
    assert set(UNTRUSTED_KINDS) == {"web", "mcp", "file", "mail", "model", "principal"}


def test_readers_are_those_that_were_named() -> None:
    assert PUBLIC.readable_by("anybody")
    only = Label.of("user", readers=["me"])
    assert only.readable_by("me") and not only.readable_by("you")
    nobody = Label.of("user", readers=[])
    assert not nobody.readable_by("me")
    assert Label.of("user") == Label(frozenset({"user"}), None)
    assert only.flows_to(nobody) and not nobody.flows_to(only)
    assert not only.flows_to(Label.of("user", readers=["me", "you"]))
    assert not only.flows_to(Label.of("user"))


@pytest.mark.parametrize(
    ("origins", "readers", "private"),
    [
        (["user", "system", "app:a"], ["me"], False),  # what people and apps say themselves
        (["user"], None, False),
        (["tool:files"], ["me"], True),
        (["user", "tool:files"], ["me"], True),
        (["mail:a@b.c"], ["me"], True),
        (["mail:app:"], ["me"], True),
        (["tool:files", "mail:a@b.c"], None, False),  # anybody may read it
        ([], ["me"], False),
    ],
)
def test_private_is_what_more_than_the_user_said_and_not_everybody_may_read(
    origins: list[str], readers: list[str] | None, private: bool
) -> None:
    assert Label.of(*origins, readers=readers).private == private
