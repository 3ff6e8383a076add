"""The JSON schemas of the OpenAPI description, in the form that generators of clients understand."""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import msgspec
from starlette.responses import Response

from latchkey.models.limit import Period
from latchkey.service import shapes
from latchkey.service.leaks.shapes import Label
from latchkey.service.openapi_components import JsonObject, ProblemDocument
from latchkey.service.operation import Operation
from latchkey.service.outbox.events import EventType
from latchkey.service.problems.registry import known
from latchkey.service.usage.shapes import By, Format, Group
from latchkey.service.webhooks.shapes import DeliveryStatus


def choice(kind: Any, description: str) -> JsonObject:
    """Return the schema of a `Literal` of texts, which may be annotated."""
    texts = get_args(kind.__origin__ if get_origin(kind) is Annotated else kind)
    return {"description": description, "type": "string", "enum": sorted(texts)}


def property_of(kind: type[msgspec.Struct], name: str, description: str) -> JsonObject:
    """Return the schema of a field of a Struct."""
    _, components = msgspec.json.schema_components([kind])
    return {**components[kind.__name__]["properties"][name], "description": description}


SHARED: Mapping[str, JsonObject] = {
    "Confirmation": choice(shapes.Force, "Whether the effect is intended."),
    "DeliveryStatus": choice(DeliveryStatus, "The state of a delivery."),
    "EventType": choice(EventType, "The type of an event."),
    "HeaderValues": property_of(
        shapes.ReceivedRequest, "headers", "Headers by name, each with one value or several."
    ),
    "JsonObject": {"description": "Any JSON object.", "type": "object", "additionalProperties": True},
    "KeyMode": choice(
        shapes.Mode, "How calls authenticate with the key: they send its secret, or sign with it."
    ),
    "KeyStatus": choice(shapes.KeyStatus, "The state of a key."),
    "LeakLabel": choice(Label, "Whether a text is the secret of a key."),
    "Period": choice(Period, "A period of the calendar in UTC."),
    "UsageFormat": choice(Format, "The format of a report."),
    "UsageGroup": choice(Group, "What the calls of a period are grouped by."),
    "UsagePeriod": choice(By, "The length of a period."),
    "UserStatus": choice(shapes.UserStatus, "The state of a user."),
}
"""The schemas of types without a name that several bodies have. A generator would make a copy for each place."""

WORDS = frozenset({"description", "default"})


class Shared:
    """The schemas of the types in `SHARED`, each as a component that all places refer to.

    Args:
        components: the schemas of the Structs; one with the name of a shared type keeps it.
    """

    def __init__(self, components: Mapping[str, JsonObject]) -> None:
        self.used: JsonObject = {}
        self._names = {core_of(schema): name for name, schema in SHARED.items() if name not in components}

    def within(self, place: Any) -> Any:
        """Return a part of the description with references in place of the shared schemas."""
        if isinstance(place, list):
            return [self.within(one) for one in place]
        if not isinstance(place, dict):
            return place
        name = self._names.get(core_of(place))
        if name is None:
            return {key: self.within(value) for key, value in place.items()}
        self.used[name] = SHARED[name]
        kept = {key: value for key, value in place.items() if key in WORDS}
        return {"$ref": f"#/components/schemas/{name}", **kept}


def core_of(schema: JsonObject) -> str:
    """Return a schema without its texts, in a form that can be compared."""
    kept = {key: value for key, value in schema.items() if key not in WORDS}
    # The default, which generators do not know: `openapi-typescript` makes an object without properties.
    if kept.get("additionalProperties") is True:
        del kept["additionalProperties"]
    return json.dumps(kept, sort_keys=True)


class Schemas:
    """The JSON schemas of all types in requests and responses, each with a unique name."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        kinds: dict[Any, None] = {ProblemDocument: None}
        for one in operations:
            kinds |= dict.fromkeys([*one.parameters.values(), *(field.type for field in query_fields(one))])
            kinds |= dict.fromkeys(kind for kind in (one.body, one.answers) if kind not in (None, Response))
        # In one call, so that two classes of the same name get different names.
        made = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
        found, components = json.loads(msgspec.json.encode(made), object_hook=tidied)
        components["Problem"]["properties"]["code"] = {"type": "string", "enum": list(known())}
        shared = Shared(components)
        for one in components.values():
            if "properties" in one:
                one["properties"] = {name: shared.within(each) for name, each in one["properties"].items()}
        found = shared.within(found)
        self.components: JsonObject = dict(sorted({**components, **shared.used}.items()))
        self._of: dict[Any, JsonObject] = dict(zip(kinds, found, strict=True))

    def of(self, kind: Any) -> JsonObject:
        """Return the schema of a type, which is a reference for a Struct."""
        return dict(self._of[kind])


def query_fields(operation: Operation) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of the query."""
    return () if operation.query is None else msgspec.structs.fields(operation.query)


def without_default(schema: JsonObject) -> JsonObject:
    """Return the schema of a property with its default in the description; a default of null means absent."""
    if "default" not in schema:
        return schema
    default = schema.pop("default")
    texts = [schema.get("description"), None if default is None else f"Default: `{json.dumps(default)}`."]
    text = " ".join(filter(None, texts))
    return {**schema, "description": text} if text else schema


def tidied(schema: JsonObject) -> JsonObject:
    """Return a schema with a clean description, and with the type `string` for an enumeration of texts.

    Docstrings keep the indentation of their source before Python 3.13, and lose it from then on. Generators of clients
    read the type first, and treat a property with a default as required. The default therefore moves into the
    description.
    """
    if schema.get("type") == "object" and "properties" in schema:
        schema["properties"] = {name: without_default(one) for name, one in schema["properties"].items()}
    if isinstance(text := schema.get("description"), str):
        schema["description"] = inspect.cleandoc(text)
    texts = schema.get("enum")
    is_text = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    return {"type": "string", **schema} if is_text else schema
