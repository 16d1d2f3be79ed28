"""Whatever is sent, the answer is one of the error table's, and never INTERNAL or UNKNOWN. The long form is fuzz.py."""

import asyncio

from fuzz import in_process, over_a_socket

from simservice.client.worlds import list_worlds


def test_mutated_messages_in_process():
    codes = asyncio.run(in_process(4_000, seed=1))
    assert codes["OK"] > 100 and codes["INVALID_ARGUMENT"] > 800 and codes["NOT_FOUND"] > 0


def test_mutated_messages_over_a_socket(toy_server):
    codes = over_a_socket(toy_server.address, 1_500, seed=1)
    assert codes["OK"] > 100 and codes["INVALID_ARGUMENT"] > 100
    assert len(list_worlds(toy_server.address)) == 2
