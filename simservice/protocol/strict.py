"""Refuses what a message holds beyond its fields: a sender who meant something by it must hear that nobody reads it."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from simservice.errors import InvalidInput


def refuse_unknown(message: Message, field: str = "request") -> None:
    """InvalidInput with the path of the message that holds an unknown field; looks into every message inside."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise InvalidInput(field, f"holds field number {unknown[0].field_number}, which this server does not know")
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            continue  # text to text
        path = f"{field}.{descriptor.name}"
        if descriptor.is_repeated:
            for place, child in enumerate(value):
                refuse_unknown(child, f"{path}[{place}]")
        else:
            refuse_unknown(value, path)
