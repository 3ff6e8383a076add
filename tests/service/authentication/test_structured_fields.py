import time
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.service.authentication.wire.structured_fields import byte_sequences, inner_lists, string

BYTES = "AAECAw=="


@pytest.mark.parametrize(
    ("text", "items", "parameters"),
    [
        pytest.param("a=()", "", {}, id="empty"),
        pytest.param('a=("x")', '"x"', {}, id="one string"),
        pytest.param('a=("x" "y")', '"x" "y"', {}, id="two strings"),
        pytest.param('*a-_.*9=("x")', '"x"', {}, id="every character of a key"),
        pytest.param('a=("x");b=1;c="d"', '"x"', {"b": "1", "c": '"d"'}, id="parameters"),
        pytest.param('a=("x");b', '"x"', {"b": ""}, id="a parameter that is true"),
        pytest.param(
            'a=("x";sf;key="k" "y");b=1', '"x";sf;key="k" "y"', {"b": "1"}, id="items with parameters"
        ),
        pytest.param(r'a=("x)\"\\;");b=";(\""', r'"x)\"\\;"', {"b": r'";(\""'}, id="delimiters in strings"),
        pytest.param(
            "a=(1 -1.5 tok/en ?1 :AA==: @1);b=:AA==:;c=?0",
            "1 -1.5 tok/en ?1 :AA==: @1",
            {"b": ":AA==:", "c": "?0"},
            id="items of each kind",
        ),
    ],
)
def test_an_inner_list_is_read_as_texts(text: str, items: str, parameters: dict[str, Any]) -> None:
    (key,) = read = inner_lists(text)

    assert key == text.partition("=")[0]
    assert read[key].text == text.partition("=")[2]
    assert (read[key].items, read[key].parameters) == (items, parameters)


@pytest.mark.parametrize("comma", [", ", ",", " ,", "\t,  "], ids=repr)
def test_several_members_are_read(comma: str) -> None:
    assert list(inner_lists(f'b=("x"){comma}a=();c')) == ["b", "a"]
    assert byte_sequences(f"b=:AAE=:{comma}a=::") == {"b": b"\0\1", "a": b""}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a", id="no value"),
        pytest.param("a=", id="empty value"),
        pytest.param("=()", id="no key"),
        pytest.param("A=()", id="a key in upper case"),
        pytest.param("1=()", id="a key that begins with a digit"),
        pytest.param("é=()", id="a key outside ASCII"),
        pytest.param('"a"=()', id="a key in quotes"),
        pytest.param("a=1", id="an integer"),
        pytest.param('a="x"', id="a string"),
        pytest.param("a=:AA==:", id="a byte sequence"),
        pytest.param("a=(", id="not closed"),
        pytest.param("a=)", id="not opened"),
        pytest.param("a=(())", id="nested"),
        pytest.param("a=() b=()", id="no comma"),
        pytest.param("a=(),", id="comma at the end"),
        pytest.param(",a=()", id="comma in front"),
        pytest.param("a=(),,b=()", id="two commas"),
        pytest.param("a=(),a=()", id="a key twice"),
        pytest.param("a =()", id="space before the equals sign"),
        pytest.param("a= ()", id="space after the equals sign"),
        pytest.param("a=( )", id="space in an empty list"),
        pytest.param('a=( "x")', id="space before the first item"),
        pytest.param('a=("x" )', id="space after the last item"),
        pytest.param('a=("x"  "y")', id="two spaces between items"),
        pytest.param('a=("x"\t"y")', id="a tab between items"),
        pytest.param('a=("x""y")', id="no space between items"),
        pytest.param('a=("x","y")', id="a comma between items"),
        pytest.param('a=("x") ;b', id="space before a semicolon"),
        pytest.param('a=("x"); b', id="space after a semicolon"),
        pytest.param('a=("x");', id="a semicolon at the end"),
        pytest.param('a=("x");;b', id="two semicolons"),
        pytest.param('a=("x");B', id="a parameter in upper case"),
        pytest.param('a=("x");b=', id="a parameter without its value"),
        pytest.param('a=("x");b =1', id="space after a parameter"),
        pytest.param('a=("x");b=1;b=1', id="a parameter twice"),
        pytest.param('a=("x)', id="a string that does not end"),
        pytest.param(r'a=("x\")', id="a string that ends in an escaped quote"),
        pytest.param(r'a=("\x")', id="an escape of something else"),
        pytest.param('a=("\t")', id="a tab in a string"),
        pytest.param('a=("é")', id="a string outside ASCII"),
        pytest.param('a=("x")\n', id="newline at the end"),
        pytest.param(' a=("x")', id="space in front"),
        pytest.param('a=("x") ', id="space at the end"),
        pytest.param("a=(\x00)", id="a null character"),
    ],
)
def test_texts_that_are_no_dictionary_of_inner_lists_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\A(no dictionary of this kind|a \w+ more than once)\Z"):
        inner_lists(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a", id="no value"),
        pytest.param(f"a={BYTES}", id="no colons"),
        pytest.param(f"a=:{BYTES}", id="not closed"),
        pytest.param(f'a="{BYTES}"', id="a string"),
        pytest.param("a=()", id="an inner list"),
        pytest.param(f"a=: {BYTES}:", id="space"),
        pytest.param("a=:AAECAw:", id="no padding"),
        pytest.param("a=:AAECAw=:", id="too little padding"),
        pytest.param("a=:AAECAw===:", id="too much padding"),
        pytest.param("a=:AAECAx==:", id="bits that mean nothing"),
        pytest.param("a=:AA=CAw==:", id="padding in the middle"),
        pytest.param("a=:__==:", id="the URL-safe alphabet"),
        pytest.param(f"a=:{BYTES}:;b=1", id="a parameter"),
        pytest.param(f"a=:{BYTES}:,a=:{BYTES}:", id="a key twice"),
        pytest.param(f"a=:{BYTES}:,", id="comma at the end"),
        pytest.param(f"a=:{BYTES}:\n", id="newline at the end"),
    ],
)
def test_texts_that_are_no_dictionary_of_byte_sequences_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no dictionary|more than once|canonical"):
        byte_sequences(text)


keys = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,5}", fullmatch=True)
bare = (
    st.integers(-(10**15) + 1, 10**15 - 1)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126))
    | st.booleans()
    | st.binary(max_size=9)
    | st.from_regex(r"[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]{0,5}", fullmatch=True).map(http_sf.Token)
)
parameters = st.dictionaries(keys, bare, max_size=3)
lists = st.tuples(st.lists(st.tuples(bare, parameters), max_size=4), parameters)


@given(st.dictionaries(keys, lists, min_size=1, max_size=3))
def test_texts_of_another_serialiser_are_read_and_covered_as_written(
    dictionary: dict[str, Any],
) -> None:
    read = inner_lists(http_sf.ser(dictionary))

    assert list(read) == list(dictionary)
    for key, (items, given_parameters) in dictionary.items():
        assert read[key].text == http_sf.ser([(items, given_parameters)])
        assert list(read[key].parameters) == list(given_parameters)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_a_string_that_another_serialiser_writes_is_read(text: str) -> None:
    assert string(http_sf.ser((text, {}))) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a", id="a token"),
        pytest.param('"', id="one quote"),
        pytest.param('"a', id="no end"),
        pytest.param('"a"b', id="something behind"),
        pytest.param('"a";b', id="a parameter"),
        pytest.param('"a"b"', id="a quote inside"),
        pytest.param(r'"a\"', id="an escaped end"),
        pytest.param(r'"\a"', id="an escape of nothing"),
        pytest.param('"é"', id="outside ASCII"),
        pytest.param('"a\n"', id="a control character"),
        pytest.param('"a"\n', id="a newline at the end"),
        pytest.param('"a", "b"', id="two"),
    ],
)
def test_texts_that_are_no_string_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no string"):
        string(text)


pieces = st.sampled_from(
    ['"', "\\", "(", ")", ";", "=", " ", ",", "a", "b", "1", ":", "AA==", "?1", "é", "\t"]
)
texts = st.lists(pieces, max_size=12).map("".join)


@given(texts)
def test_texts_that_both_parsers_read_are_read_alike(text: str) -> None:
    for read in (inner_lists, byte_sequences):
        for whole in (text, f'a=("x"){text}', f"a=:AA==:{text}"):
            try:
                here = read(whole)
                there: Any = http_sf.parse(whole.encode(), tltype="dictionary")
            except ValueError:
                continue
            assert list(here) == list(there)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 65_536, id="a key"),
        pytest.param('a=("' + "x" * 65_536, id="a string"),
        pytest.param('a=("' + '\\"' * 32_768, id="escapes"),
        pytest.param("a=(" + "x " * 32_768, id="items"),
        pytest.param('a=("x"' + ";b" * 32_768, id="parameters of an item"),
        pytest.param('a=("x")' + ";b" * 32_768, id="parameters"),
        pytest.param('a=("x")' + ";b=1" * 16_384 + ";", id="parameters with values"),
        pytest.param("a=:" + "A" * 65_536, id="base64"),
        pytest.param("a=()" + " " * 65_536, id="white space"),
        pytest.param("a=()," + ",".join(f"a{n}=()" for n in range(8192)) + ",", id="members"),
    ],
)
def test_64_kb_that_lead_nowhere_are_refused_soon(text: str) -> None:
    begin = time.process_time()

    for read in (inner_lists, byte_sequences):
        with pytest.raises(ValueError, match=r"no dictionary|more than once"):
            read(text)

    assert time.process_time() - begin < 1  # some milliseconds; minutes if the pattern backtracked


def test_nothing_shows_what_the_client_sent() -> None:
    assert "hush" not in repr(inner_lists('a=("hush")'))
