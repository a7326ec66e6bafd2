"""A chat of a rollout with one endpoint, which answers the model's tool calls with functions of the user."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from orchestrator import exact_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from orchestrator.rollout import Ask


class ToolConversation:
    """The `Conversation` of chats in OpenAI's format."""

    def __init__(
        self,
        ask: Ask,
        system: str | None,
        to: str | None,
        tools: Sequence[Callable[..., Awaitable[object]]],
        parameters: Mapping[str, object],
    ) -> None:
        self.messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        self._ask = ask
        self._to = to
        for tool in tools:
            if not hasattr(tool, "__name__"):
                raise TypeError(f"tools= has {tool!r}, which is not an async function with a name")
        self._tools = {tool.__name__: tool for tool in tools}
        self._parameters = {**parameters, "tools": [_described(tool) for tool in tools]} if tools else parameters

    async def say(self, content: object, *, step: str | None = None, deadline: float | None = None) -> Any:
        """Send a user's message; call the tools that the model wants, and return its answer when it wants none."""
        self.messages.append({"role": "user", "content": content})
        while True:
            request = {"messages": [*self.messages], **self._parameters}
            answer = await self._ask(request, self._to, step=step, deadline=deadline)
            calls = answer.get("tool_calls") if isinstance(answer, dict) else None
            if not calls:
                self.messages.append({"role": "assistant", "content": answer})
                return answer
            self.messages.append({"role": "assistant", "content": answer.get("content"), "tool_calls": calls})
            for call in calls:
                result = await self._called(call["function"])
                self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": _text(result)})

    async def _called(self, function: Mapping[str, Any]) -> object:
        """Return a tool's result, or what is wrong with the call, for the model to correct."""
        name, arguments = function["name"], function.get("arguments") or "{}"
        if (tool := self._tools.get(name)) is None:
            return f"there is no tool {name!r}; there are {', '.join(self._tools) or 'none'}"
        try:
            given = exact_json.loads(arguments) if isinstance(arguments, str) else arguments
        except ValueError as error:
            return f"the arguments are not JSON: {error}"
        if not isinstance(given, dict):
            return "the arguments are not a JSON object"
        try:
            inspect.signature(tool).bind(**given)
        except TypeError as error:
            return f"the arguments do not fit: {error}"
        return await self._ask.call(tool, **given)


def _described(tool: Callable[..., object]) -> dict[str, object]:
    """Return a function as a tool: its name, its docstring, and the JSON Schema of its arguments."""
    from pydantic import TypeAdapter  # it takes long to import, and few rollouts have tools

    schema = TypeAdapter[object](tool).json_schema()  # type: ignore[arg-type]  # functions are allowed, too
    function: dict[str, object] = {"name": tool.__name__, "parameters": schema}
    if tool.__doc__:
        function["description"] = tool.__doc__.strip()
    return {"type": "function", "function": function}


def _text(result: object) -> str:
    return result if isinstance(result, str) else exact_json.dumps(result).decode()
