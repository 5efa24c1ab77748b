"""Python `websockets`: all sends of a round in one `asyncio.gather`."""

import asyncio

from peer import Peer, run_websockets


async def to_each(frames) -> None:
    await asyncio.gather(*(client.send(text) for client, text in frames), return_exceptions=True)


run_websockets(Peer(to_each))
