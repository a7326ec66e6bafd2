"""Checks that tokens are set and endpoints answer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from orchestrator.app.doctor.finding import Finding
from orchestrator.domain.command_line import typed
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointLost, OrchestratorError, RequestFailed
from orchestrator.endpoints import (
    CommandEndpoint,
    HttpEndpoint,
    HuggingFaceEndpoint,
    LocalEndpoint,
    RayEndpoint,
    ServerlessEndpoint,
)
from orchestrator.endpoints.device_trial import why_unusable
from orchestrator.endpoints.hf_token import HF_TOKEN, find_token
from orchestrator.ports import ChoosesByMachine

if TYPE_CHECKING:
    from orchestrator.app.doctor.finding import Findings, Patient
    from orchestrator.ports import Endpoint

_ANSWERS_WITHIN = 10.0  # seconds for one endpoint
_MANAGED = (HuggingFaceEndpoint, CommandEndpoint)
_REMOTE = (HttpEndpoint, ServerlessEndpoint)


async def settings(patient: Patient) -> Findings:
    """Report endpoints whose settings are not valid."""
    remedy = "correct the setting; docs/endpoints.md lists all of them"
    wrong = {name: why for name, why in patient.endpoints.items() if isinstance(why, str)}
    return [Finding(f"endpoint {name}", "fail", why, remedy) for name, why in wrong.items()]


async def tokens(patient: Patient) -> Findings:
    """Report where each token comes from, but never the token itself."""
    findings = [await _hugging_face(patient)]
    for name, endpoint in _usable(patient).items():
        variable = getattr(endpoint, "token_env", None)
        if variable is None or variable == HF_TOKEN:
            continue
        if os.environ.get(variable):
            findings.append(Finding(f"token of {name}", "ok", f"in the environment variable {variable}"))
        else:
            seen, remedy = f"the environment variable {variable} is not set", f"set {variable}"
            findings.append(Finding(f"token of {name}", "fail", seen, remedy))
    return findings


async def _hugging_face(patient: Patient) -> Finding:
    needed = any(getattr(endpoint, "token_env", None) == HF_TOKEN for endpoint in _usable(patient).values())
    try:
        token = await find_token()
    except OrchestratorError as failure:
        reason, _, remedy = str(failure).partition(": ")
        if needed:
            return Finding("Hugging Face token", "fail", reason, remedy)
        return Finding("Hugging Face token", "ok", f"{reason}, and nothing needs one")
    return Finding("Hugging Face token", "ok", f"in {token.source}")


async def reach(patient: Patient) -> Findings:
    """Check all endpoints once, concurrently. Wakes none of them."""
    if patient.offline:
        return [Finding("endpoints", "ok", "not checked (--offline)")] if patient.endpoints else []
    findings: dict[str, Finding] = {}

    async def look(name: str, endpoint: Endpoint) -> None:
        findings[name] = await _look(f"endpoint {name}", endpoint, _remedy(patient, name, endpoint))

    usable = _usable(patient)
    async with anyio.create_task_group() as group:
        for name, endpoint in usable.items():
            group.start_soon(look, name, endpoint)
    return [findings[name] for name in usable]


def _remedy(patient: Patient, name: str, endpoint: Endpoint) -> str:
    """Return the command that finds out more. A `CommandEndpoint` needs to be in the settings file for that."""
    if name in patient.settings or isinstance(endpoint, HttpEndpoint | HuggingFaceEndpoint):
        asked = name if name in patient.settings else endpoint.name
        return f"`{typed('endpoints', 'check', asked)}` tries each step of a request"
    return "run its state command by hand" if isinstance(endpoint, CommandEndpoint) else ""


async def _look(name: str, endpoint: Endpoint, remedy: str) -> Finding:
    if isinstance(endpoint, LocalEndpoint) and (trouble := await _device_trouble(endpoint)) is not None:
        return Finding(name, "fail", trouble, 'name another device, or leave device= out; device="cpu" always works')
    if not isinstance(endpoint, _MANAGED + _REMOTE):
        where = "on its Ray cluster" if isinstance(endpoint, RayEndpoint) else "on this machine"
        choice = endpoint.choice() if isinstance(endpoint, ChoosesByMachine) else None
        return Finding(name, "ok", "; ".join(filter(None, [f"starts {where} when it is used", choice])))
    try:
        with anyio.fail_after(_ANSWERS_WITHIN):
            async with endpoint.control() as control:
                if isinstance(endpoint, _REMOTE):
                    answers = await control.answers()
                    return (
                        Finding(name, "ok", "answers")
                        if answers
                        else Finding(name, "fail", control.status_text, remedy)
                    )
                state = await control.state()
                seen = f"{state}; its own status: {control.status_text}"
                return (
                    Finding(name, "fail", seen, remedy) if state is EndpointState.FAILED else Finding(name, "ok", seen)
                )
    except TimeoutError:
        return Finding(name, "fail", f"no answer within {_ANSWERS_WITHIN:.0f} s", remedy)
    except (OrchestratorError, RequestFailed, EndpointLost) as failure:
        return Finding(name, "fail", str(failure), remedy)


async def _device_trouble(endpoint: LocalEndpoint) -> str | None:
    try:
        return await why_unusable(endpoint)
    except OrchestratorError as failure:
        return str(failure)


def _usable(patient: Patient) -> dict[str, Endpoint]:
    return {name: endpoint for name, endpoint in patient.endpoints.items() if not isinstance(endpoint, str)}
