"""Conversations of rollouts, with a real server of chats that calls tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from orchestrator.endpoints import HttpEndpoint
from orchestrator.wires import OpenAIChatWire
from tests.engine.rollouts.rollout_jobs import ask_rows, rollout_job
from tests.engine.scripted import outputs, run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Ask
    from orchestrator.store import Store

pytestmark = pytest.mark.real_time


def call(name: str, arguments: str) -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    return {"content": None, "tool_calls": [{"id": f"call-{name}", "type": "function", "function": function}]}


class ChatServer:
    """Calls a tool as the latest message of the user says ("NAME ARGUMENTS"), and then repeats the tool's result."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        last = body["messages"][-1]
        name, _, arguments = str(last["content"]).partition(" ")
        if last["role"] == "user" and arguments:
            message = call(name, arguments)
        else:
            message = {"content": f"so {last['content']}"}
        reason = "tool_calls" if "tool_calls" in message else "stop"
        choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
        return web.json_response({"object": "chat.completion", "choices": [choice]})


async def test_a_conversation_keeps_messages_and_answers_tool_calls(store: Store, tmp_path: Path) -> None:
    chats, looked_up = ChatServer(), list[str]()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", chats.answer)

    async def weather(city: str, days: int = 1) -> dict[str, object]:
        """Return the weather in a city."""
        looked_up.append(city)
        return {"city": city, "days": days, "sky": "clear"}

    async def rollout(row: dict[str, str], ask: Ask) -> object:
        chat = ask.conversation(system="Be brief.", tools=[weather], temperature=0)
        found = [await chat.say(text) for text in row["text"].split("; ")]
        return {"found": found, "roles": [message["role"] for message in chat.messages]}

    async def edited(row: dict[str, str], ask: Ask) -> object:
        return [await rollout(row, ask)]

    async with TestServer(application) as server:
        endpoint = HttpEndpoint(str(server.make_url("/")), wire=OpenAIChatWire("m"))
        said = 'hello; weather {"city": "Rome"}; news {}; weather {"town": "Rome"}; weather [1]; weather {'
        job = rollout_job([said], rollout, endpoint, tmp_path)  # type: ignore[arg-type]  # not scripted
        await run(job, store)
        asked = len(chats.requests)
        await run(rollout_job([said], edited, endpoint, tmp_path, name="rollouts"), store)  # type: ignore[arg-type]
    assert len(chats.requests) == asked == 11
    assert looked_up == ["Rome"]
    assert outputs(job)["i0"] == [
        {
            "found": [
                "so hello",
                'so {"city":"Rome","days":1,"sky":"clear"}',
                "so there is no tool 'news'; there are weather",
                "so the arguments do not fit: missing a required argument: 'city'",
                "so the arguments are not a JSON object",
                "so the arguments are not JSON: unexpected end of data: line 1 column 2 (char 1)",
            ],
            "roles": ["system", "user", "assistant", *["user", "assistant", "tool", "assistant"] * 5],
        }
    ]
    (tool,) = chats.requests[0]["tools"]
    assert tool["function"]["description"] == "Return the weather in a city."
    assert set(tool["function"]["parameters"]["properties"]) == {"city", "days"}
    steps = [(row.endpoint is None, row.step) for row in await ask_rows(store)]
    assert [step for called, step in steps if called] == [weather.__qualname__]
