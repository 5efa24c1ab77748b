"""Python `websockets`: its own `broadcast`, which waits for nobody."""

from websockets.asyncio.server import broadcast

from peer import Peer, run_websockets


async def to_all(clients, text) -> None:
    broadcast(clients, text)


async def to_each(frames) -> None:
    for client, text in frames:
        broadcast([client], text)


run_websockets(Peer(to_each, to_all))
