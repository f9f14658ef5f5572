"""Long answers, sent while they are read: a JSON object whose members are lists."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import orjson


async def encode_lists(
    lists: Mapping[str, AsyncGenerator[Sequence[Any], None]],
) -> AsyncGenerator[bytes, None]:
    """Encodes an object of lists that come by the chunk, one after the other; all of them are closed at the end."""
    async with AsyncExitStack() as stack:
        for chunks in lists.values():
            await stack.enter_async_context(aclosing(chunks))
        opening = b"{"
        for name, chunks in lists.items():
            yield opening + orjson.dumps(name) + b":["
            opening = b"],"
            separator = b""
            async for chunk in chunks:
                if chunk:
                    yield separator + orjson.dumps(chunk)[1:-1]
                    separator = b","
        yield b"]}" if lists else b"{}"
