"""A heap with holes in it, to see who gives them back to the system."""

from contextlib import contextmanager

from zsc_utils._process import resident

HOLES = 20_000_000  # bytes


def anonymous():
    """Bytes that this process wrote and still holds."""
    return resident("self")["RssAnon"]


@contextmanager
def heap_with_holes():
    """Yield `anonymous` once glibc's heap has HOLES bytes that are free, but not at its end, where it would shrink."""
    blocks = [bytearray(100_000) for _ in range(2 * HOLES // 100_000)]
    kept = blocks[::2]
    blocks.clear()
    yield anonymous()
    kept.clear()
