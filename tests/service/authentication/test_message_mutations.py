"""A signature proves nothing once any part of its request has changed."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.authentication.message_requests import FULL, PARAMETERS, Sent, accepted, replaced, signed

WHOLE = signed()


PARTS = ["method", "raw_path", "query_string", "body", *(name.decode() for name, _ in WHOLE.headers)]


def part(sent: Sent, name: str) -> bytes:
    if name == "method":
        return sent.method.encode()
    return dict(sent.headers)[name.encode()] if name.encode() in dict(sent.headers) else getattr(sent, name)


def with_part(sent: Sent, name: str, value: bytes) -> Sent:
    if name == "method":
        return sent.but(method=value.decode("latin-1"))
    if name.encode() in dict(sent.headers):
        return sent.but(headers=tuple((n, value if n == name.encode() else v) for n, v in sent.headers))
    return sent.but(**{name: value})


def means_the_same(name: str, one: bytes, other: bytes) -> bool:
    """Return whether two requests differ only in white space around headers, the host's case or its default port.

    None of these has a meaning (RFC 9110, sections 4.2.3 and 5.5).
    """
    if name == "host":
        return one.strip(b" \t").lower() in {other, other + b":", other + b":443"}
    return one.strip(b" \t") == other if name.encode() in dict(WHOLE.headers) else one == other


def test_the_request_that_is_mutated_is_accepted() -> None:
    assert accepted(WHOLE)
    assert len(PARTS) == 10


@pytest.mark.parametrize("name", PARTS)
def test_each_flipped_bit_is_noticed(name: str) -> None:
    right = part(WHOLE, name)
    for place, bit in itertools.product(range(len(right)), range(8)):
        wrong = bytearray(right)
        wrong[place] ^= 1 << bit
        sent = with_part(WHOLE, name, bytes(wrong))

        assert accepted(sent) is means_the_same(name, bytes(wrong), right), (place, bit)


def test_each_flipped_bit_in_the_name_of_a_header_is_noticed() -> None:
    for index, (name, value) in enumerate(WHOLE.headers):
        for place, bit in itertools.product(range(len(name)), range(8)):
            wrong = bytearray(name)
            wrong[place] ^= 1 << bit
            headers = list(WHOLE.headers)
            headers[index] = (bytes(wrong), value)

            assert not accepted(WHOLE.but(headers=tuple(headers)))


@given(st.sampled_from(PARTS), st.data())
def test_bytes_that_are_put_in_taken_out_or_exchanged_are_noticed(name: str, data: st.DataObject) -> None:
    right = part(WHOLE, name)
    begin = data.draw(st.integers(0, len(right)))
    end = data.draw(st.integers(begin, min(begin + 8, len(right))))
    wrong = right[:begin] + data.draw(st.binary(max_size=8)) + right[end:]

    assert accepted(with_part(WHOLE, name, wrong)) is means_the_same(name, wrong, right)


@given(st.sampled_from(PARTS), st.sampled_from(PARTS))
def test_a_part_in_another_s_place_is_noticed(one: str, other: str) -> None:
    sent = with_part(with_part(WHOLE, one, part(WHOLE, other)), other, part(WHOLE, one))

    assert accepted(sent) is (one == other)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_dropped_or_doubled_is_noticed(name: str) -> None:
    right = part(WHOLE, name)
    header = (name.encode(), right)

    assert not accepted(with_part(WHOLE, name, b""))
    assert not accepted(with_part(WHOLE, name, right * 2))
    assert not accepted(with_part(WHOLE, name, right + b", " + right))
    if header in WHOLE.headers:
        assert not accepted(WHOLE.but(headers=tuple(one for one in WHOLE.headers if one != header)))
        assert not accepted(WHOLE.but(headers=(*WHOLE.headers, header)))


ITEMS = FULL.split(" ")


SETTINGS = PARAMETERS[1:].split(";")


def retold(items: list[str], settings: list[str]) -> Sent:
    """Return the same request and MAC with another input."""
    return replaced(
        WHOLE, signature_input=f"sig1=({' '.join(items)})" + "".join(f";{setting}" for setting in settings)
    )


@pytest.mark.parametrize("index", range(len(ITEMS)), ids=ITEMS)
def test_a_component_that_is_dropped_or_doubled_is_noticed(index: int) -> None:
    assert not accepted(retold(ITEMS[:index] + ITEMS[index + 1 :], SETTINGS))
    assert not accepted(retold([*ITEMS, ITEMS[index]], SETTINGS))


@pytest.mark.parametrize("index", range(len(SETTINGS)), ids=SETTINGS)
def test_a_parameter_that_is_dropped_or_doubled_is_noticed(index: int) -> None:
    assert not accepted(retold(ITEMS, SETTINGS[:index] + SETTINGS[index + 1 :]))
    assert not accepted(retold(ITEMS, [*SETTINGS, SETTINGS[index]]))


@given(st.permutations(ITEMS), st.permutations(SETTINGS))
def test_another_order_than_the_signed_one_is_noticed(items: list[str], settings: list[str]) -> None:
    assert accepted(retold(items, settings)) is (items == ITEMS and settings == SETTINGS)


names = st.sampled_from([name for name, _ in WHOLE.headers])


pieces = st.sampled_from(
    [b"sig1", b"=", b"(", b")", b'"@method"', b" ", b";", b",", b":", PARAMETERS.encode(), b'"']
)


header_values = st.binary() | st.lists(pieces | st.binary(max_size=2), max_size=12).map(b"".join)


@given(
    st.lists(st.tuples(names | st.binary(), header_values), max_size=8),
    st.text(),
    st.binary(),
    st.binary(),
    st.sampled_from(["http", "https", "", "x"]),
)
def test_no_request_upsets_the_checks(
    headers: list[Any], method: str, raw_path: bytes, query_string: bytes, scheme: str
) -> None:
    sent = WHOLE.but(headers=tuple({**dict(WHOLE.headers), **dict(headers)}.items()))
    same = all(means_the_same(name, part(sent, name), part(WHOLE, name)) for name in PARTS)

    assert accepted(sent) is same
    assert not accepted(
        sent.but(
            headers=tuple(headers), method=method, raw_path=raw_path, query_string=query_string, scheme=scheme
        )
    )
