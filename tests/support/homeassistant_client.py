"""Asks Home Assistant's websocket API; run by Home Assistant's own Python, which has aiohttp.

Standard input: a JSON object of ``url``, ``token`` and ``command`` (a websocket command without its id). Standard
output: the command's result as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiohttp


async def ask(url: str, token: str, command: dict[str, Any]) -> Any:  # noqa: ANN401  JSON
    """Log in, send one command and return its result.

    :raises ValueError: Home Assistant refuses the token or the command.
    """
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.receive_json()  # that it wants a token
        await socket.send_json({"type": "auth", "access_token": token})
        answer = await socket.receive_json()
        if answer["type"] != "auth_ok":
            raise ValueError(answer)
        await socket.send_json({**command, "id": 1})
        answer = await socket.receive_json()
        if not answer["success"]:
            raise ValueError(answer["error"])
        return answer["result"]


if __name__ == "__main__":
    json.dump(asyncio.run(ask(**json.load(sys.stdin))), sys.stdout)
