"""Large messages find the memory of the last ones again."""

import platform
import resource
import subprocess
import sys

import pytest

CODE = """
import resource
from simservice.protocol.memory import keep_freed_memory
{keep}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        blocks = [bytes(bytearray(800_000)) for _ in range(3)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(keep):
    done = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory by rules of their own")
def test_what_was_freed_is_not_given_back_with_every_message():
    pages = 800_000 // resource.getpagesize()
    assert faults("") > 100 * pages, "this C library keeps it by itself"
    assert faults("keep_freed_memory()") < 10 * pages
