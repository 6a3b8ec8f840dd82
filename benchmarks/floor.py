"""The bare copy all ratios are against: the upstream's event stream in, JSON frames out to a WebSocket, nothing else.

Made of the libraries the product is made of (aiohttp both ways, orjson, uvloop), written as anybody would write it: no
storage, no sessions, no checks, no second process. Run by processes as `python -m benchmarks.floor UPSTREAM_URL`.
"""

import asyncio
import sys

import aiohttp
import orjson
import uvloop
from aiohttp import web

CLIENT = web.AppKey("client", aiohttp.ClientSession)


async def gateway(request: web.Request) -> web.WebSocketResponse:
    """One WebSocket: answers one `chat.send` after the other."""
    client = request.app[CLIENT]
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.TEXT:
            break
        frame = orjson.loads(message.data)
        await copy(client, socket, frame["id"], frame["content"])
    return socket


async def copy(client: aiohttp.ClientSession, socket: web.WebSocketResponse, request_id: str, content: str) -> None:
    """Ask the upstream and pass on what it says."""
    body = orjson.dumps(
        {
            "model": "bench",
            "max_tokens": 8192,
            "stream": True,
            "messages": [{"role": "user", "content": content}],
        }
    )
    headers = {"content-type": "application/json", "x-api-key": "none", "anthropic-version": "2023-06-01"}
    rest = b""
    async with client.post("/v1/messages", data=body, headers=headers) as response:
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not line.startswith(b"data: "):
                    continue
                event = orjson.loads(line[6:])
                if event["type"] == "content_block_delta":
                    frame = {"type": "chat.stream.delta", "requestId": request_id, "delta": event["delta"]["text"]}
                    await socket.send_str(orjson.dumps(frame).decode())
    await socket.send_str(orjson.dumps({"type": "chat.stream.end", "requestId": request_id}).decode())


async def main(upstream: str) -> None:
    """Serve until killed."""
    async with aiohttp.ClientSession(upstream, connector=aiohttp.TCPConnector(limit=0)) as client:
        app = web.Application()
        app[CLIENT] = client
        app.router.add_get("/gateway", gateway)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(orjson.dumps({"event": "ready", "port": runner.addresses[0][1]}).decode(), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
