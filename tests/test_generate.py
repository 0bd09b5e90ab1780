"""The generated documents: `schemas.generate`, `schemas/json`, `schemas/asyncapi.json`."""

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from schemas.events import REASONS, TOPICS, Receipt, Receive, Send
from schemas.generate import (
    DESCRIPTIONS,
    PARTITIONS,
    TOPIC_PREFIX,
    asyncapi,
    documents,
    json_schema,
    render,
)
from streams.settings import load

SCHEMAS: Final = Path(__file__).parent.parent / "schemas"
NAMES: Final = {"sends": "send", "receives": "receive", "receipts": "receipt"}
VALUES: Final = sorted((SCHEMAS / "examples").glob("*/*.json"))
VALIDATORS: Final = {topic: Draft202012Validator(json_schema(name)) for topic, name in NAMES.items()}

# What a schema cannot say, or Python's reading of it does not.
UNSAID: Final = re.compile(
    r"segments?-(2\.0|exponent)"  # JSON Schema takes 2.0 for an integer
    r"|occurred_at-(1970|1999|before-2000-by-offset|year-.|no-leap-year)"  # a pattern knows no calendar
    r"|provider-8193-bytes"  # length is counted in characters, and these take two bytes
    # In Python, `$` also matches before a last line feed.
    r"|(from|rate|carrier_fee|mnc)-trailing-newline|occurred_at-newline|from-alphanumeric-line-feed"
)


def file_id(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def is_valid(path: Path) -> bool:
    return bool(VALIDATORS[path.parent.name].is_valid(json.loads(path.read_bytes())))


def references(document: Any) -> list[str]:
    """Every `$ref` in a document."""
    if isinstance(document, list):
        return [ref for item in document for ref in references(item)]
    if not isinstance(document, dict):
        return []
    own = [document["$ref"]] if isinstance(document.get("$ref"), str) else []
    return own + [ref for item in document.values() for ref in references(item)]


def resolve(document: Any, ref: str) -> Any:
    for step in ref.removeprefix("#/").split("/"):
        document = document[step]
    return document


@pytest.mark.parametrize("path", documents())
def test_the_files_are_what_the_code_generates(path: str) -> None:
    """`python -m schemas.generate` was run after the last change of the types."""
    assert (SCHEMAS / path).read_text(encoding="utf-8") == render(documents()[path])


@pytest.mark.parametrize("name", NAMES.values())
def test_schemas_are_json_schema_2020_12(name: str) -> None:
    """The dialect's own schema accepts them."""
    Draft202012Validator.check_schema(json_schema(name))


@pytest.mark.parametrize("kind", [Send, Receive, Receipt])
def test_every_field_is_described(kind: type[msgspec.Struct]) -> None:
    """A schema has the fields of the type that come over the wire, each with a description, and no others."""
    wire = {field.encode_name for field in msgspec.structs.fields(kind) if field.encode_name[0] != "~"}
    properties = json_schema(kind.__name__.lower())["properties"]
    assert set(properties) == wire
    assert all(content["description"] for content in properties.values())


def test_no_description_is_left_over() -> None:
    """Every description belongs to a field."""
    assert {field for name in NAMES.values() for field in json_schema(name)["properties"]} == set(DESCRIPTIONS)


@pytest.mark.parametrize("path", [p for p in VALUES if p.name.startswith("good-")], ids=file_id)
def test_good_examples_are_valid(path: Path) -> None:
    """What the decoder accepts, the schema accepts."""
    assert is_valid(path)


@pytest.mark.parametrize(
    "path", [p for p in VALUES if re.match("bad-(missing|invalid)_field-|bad-not_an", p.name)], ids=file_id
)
def test_bad_examples_are_not_valid(path: Path) -> None:
    """What the decoder refuses for its fields, the schema refuses too, as far as a schema can say it."""
    unsaid = UNSAID.fullmatch(path.stem.removeprefix("bad-invalid_field-")) is not None
    assert is_valid(path) == unsaid


def test_asyncapi_refers_only_to_what_it_has() -> None:
    """Every reference in the AsyncAPI document leads somewhere in it."""
    document = asyncapi()
    assert all(resolve(document, ref) for ref in references(document))


def test_asyncapi_has_the_topics_by_their_default_names(tmp_path: Path) -> None:
    """The four topics, named and cut as the default settings name and cut them."""
    settings = load({}, tmp_path)
    assert (settings.topic_prefix, settings.partitions) == (TOPIC_PREFIX, PARTITIONS)
    channels = asyncapi()["channels"].values()
    names = {f"{TOPIC_PREFIX}{topic}" for topic in (*TOPICS, "dead-letters")}
    assert {channel["address"] for channel in channels} == names
    assert {channel["bindings"]["kafka"]["topic"] for channel in channels} == names
    assert {channel["bindings"]["kafka"]["partitions"] for channel in channels} == {PARTITIONS}


@pytest.mark.parametrize("topic", TOPICS)
def test_asyncapi_payloads_take_the_examples(topic: str) -> None:
    """A payload in the AsyncAPI document, read as draft-07 as is its default, accepts the good examples."""
    document = asyncapi()
    message = document["components"]["messages"][NAMES[topic]]
    validator = Draft7Validator({**message["payload"], "components": document["components"]})
    for path in VALUES:
        if path.parent.name == topic and path.name.startswith("good-"):
            assert validator.is_valid(json.loads(path.read_bytes())), path.name


def test_dead_letters_name_every_reason() -> None:
    """The dead letters' headers are the six of the contract, with all the reasons."""
    headers = asyncapi()["components"]["messages"]["deadLetter"]["headers"]
    assert headers["required"] == ["reason", "detail", "topic", "partition", "offset", "timestamp"]
    assert headers["properties"]["reason"]["enum"] == list(REASONS)
