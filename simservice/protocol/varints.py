"""Whole numbers as the wire has them: seven bits a byte, the lowest first."""

from __future__ import annotations

LONGEST = 10  # bytes of 64 bits


def varint(number: int) -> bytes:
    """A whole number, not negative."""
    if number < 2**7:
        return bytes((number,))
    if number < 2**14:
        return bytes((number & 127 | 128, number >> 7))
    if number < 2**21:
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    if number < 2**28:  # most times, in nanoseconds
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128, number >> 21))
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def numbered(sequence: int) -> bytes:
    """What a request of that number begins with, and its reply as well: the same field of both messages."""
    return b"\x08" + varint(sequence)


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins there and where it ends; (0, 0) where none does, or one that is longer than need be."""
    number = shift = 0
    for place in range(at, min(at + LONGEST, len(message))):
        byte = message[place]
        number |= (byte & 127) << shift
        if byte < 128:
            if (byte == 0 and place > at) or number >= 2**64:
                break
            return number, place + 1
        shift += 7
    return 0, 0
