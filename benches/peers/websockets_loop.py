"""Python `websockets`: one awaited send after another."""

from websockets.exceptions import ConnectionClosed

from peer import Peer, run_websockets


async def to_each(frames) -> None:
    for client, text in frames:
        try:
            await client.send(text)
        except ConnectionClosed:
            pass


run_websockets(Peer(to_each))
