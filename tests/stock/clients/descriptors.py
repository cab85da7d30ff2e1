"""The protocol's messages as a client knows them, as JSON: `python descriptors.py MODULE...` of its stubs."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor


def described(files: list[FileDescriptor]) -> dict[str, Any]:
    """Fields by message and number, values by enum, methods with what they take and give."""
    found: dict[str, Any] = {"messages": {}, "enums": {}, "methods": {}}
    for file in files:
        for message in file.message_types_by_name.values():
            _message(message, found["messages"])
        for enum in file.enum_types_by_name.values():
            found["enums"][enum.full_name] = {value.name: value.number for value in enum.values}
        for service in file.services_by_name.values():
            for method in service.methods:
                of = (method.input_type.full_name, method.output_type.full_name)
                found["methods"][method.full_name] = [*of, method.client_streaming, method.server_streaming]
    return found


def _message(message: Descriptor, found: dict[str, Any]) -> None:
    found[message.full_name] = {field.number: _field(field) for field in message.fields}
    for nested in message.nested_types:
        _message(nested, found)


def _field(field: FieldDescriptor) -> list[Any]:
    """Name, type, whether repeated, whether packed, the message or enum it holds, and the oneof it is in."""
    of = field.message_type or field.enum_type
    one_of = field.containing_oneof
    packed = field.is_packed
    return [field.name, field.type, field.is_repeated, packed, of and of.full_name, one_of and one_of.name]


if __name__ == "__main__":
    print(json.dumps(described([importlib.import_module(name).DESCRIPTOR for name in sys.argv[1:]])))
