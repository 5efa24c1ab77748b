"""FastAPI with uvicorn: all sends of a round in one `asyncio.gather`."""

import asyncio
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from peer import BACKLOG, PORT, Peer


async def to_each(frames) -> None:
    await asyncio.gather(*(client.send_text(text) for client, text in frames), return_exceptions=True)


peer = Peer(to_each)


@asynccontextmanager
async def lifespan(_):
    rounds = asyncio.create_task(peer.run())
    yield
    rounds.cancel()


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws")
async def on_client(client: WebSocket) -> None:
    await client.accept()
    try:
        while True:
            peer.join(client, await client.receive_text())
    except WebSocketDisconnect:
        pass
    finally:
        peer.leave(client)


uvicorn.run(app, host="127.0.0.1", port=PORT, backlog=BACKLOG, log_level="warning")
