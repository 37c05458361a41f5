"""A bare ASGI application: no framework, msgspec for JSON, uvicorn with uvloop and httptools."""

import os
import sys
from typing import Any

import msgspec
import uvicorn
from same_model import SameModel


def application(model: SameModel) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = msgspec.json.encode(model.answered(msgspec.json.decode(body)["inputs"][0]))
        length = str(len(answer)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


if __name__ == "__main__":
    uvicorn.run(
        application(SameModel(os.environ["BENCH_BUNDLE"])),
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http="httptools",
    )
