"""Batches of the Batch API: a list, newest first, and one batch with its counts, files and errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.batch import BatchStatus
from orchestrator.domain.errors import BatchOver
from orchestrator.domain.phrases import count, duration, size
from orchestrator.engine.batches import creation
from orchestrator.report.listings import moment
from orchestrator.report.markup import Markup, joined, tag
from orchestrator.server.context import context_of, identity_of
from orchestrator.server.failures import Refused
from orchestrator.server.page.addresses import run_link, with_query
from orchestrator.server.page.layout import Page, action, progress, respond, section, table, tiles

if TYPE_CHECKING:
    from orchestrator.domain.batch import BatchProgress, StoredFile

_MOST = 50  # batches on a page
_ERRORS = 200  # lines that are listed
_KINDS = {
    BatchStatus.COMPLETED: "good",
    BatchStatus.FAILED: "bad",
    BatchStatus.EXPIRED: "bad",
    BatchStatus.CANCELLING: "warn",
}


async def batches_page(request: web.Request) -> web.Response:
    """Answer with a page of the list of batches: all for an admin, those of whoever asks otherwise."""
    batches, owner, after = context_of(request).app.store.batches, identity_of(request).only, request.query.get("after")
    if after and await batches.find(after, owner) is None:
        raise Refused(404, f"there is no batch {after}")
    found, more = await batches.listed(owner, after=after or None, limit=_MOST)
    if not found:
        words = "There is no batch yet. The Batch API of this server makes them: "
        example = tag("code", f'OpenAI(base_url="{context_of(request).address.url}/v1", api_key=TOKEN)')
        return respond(Page("Batches", [tag("p", words, example, class_="empty")], "/batches"))
    heads = [
        ("batch", "wide"),
        ("status", ""),
        ("requests", "n"),
        ("completed", "n"),
        ("failed", "n"),
        ("model", "wide"),
    ]
    heads += [("created", "when"), ("owner", ""), ("failed because", "wide")]
    body = [section("Latest", table(heads, [_row(one) for one in found], "Batches"))]
    if more:
        older = with_query("/batches", after=found[-1].batch.id)
        body.append(tag("p", tag("a", "Older", href=older, rel="next"), class_="pages"))
    return respond(Page("Batches", body, "/batches", ticks=any(one.batch.ended_as is None for one in found)))


def _row(one: BatchProgress) -> list[str]:
    batch = one.batch
    return [
        tag("a", batch.id, href=f"/batches/{batch.id}"),
        _badge(one.status),
        f"{one.total:,}",
        f"{one.completed:,}",
        f"{one.failed:,}",
        batch.model or "",
        moment(batch.created_at),
        batch.owner,
        _why(one),
    ]


def _why(one: BatchProgress) -> str:
    """Return why a batch failed: its first error, and how many more there are."""
    errors = one.batch.errors
    if one.status is not BatchStatus.FAILED or not errors:
        return ""
    more = f" (and {count(len(errors) - 1, 'more error')})" if len(errors) > 1 else ""
    return f"{'' if errors[0].line is None else f'line {errors[0].line:,}: '}{errors[0].message}{more}"


def _badge(status: BatchStatus) -> Markup:
    return tag("span", status.replace("_", " "), class_=f"badge {_KINDS.get(status, '')}".rstrip())


# -- one batch --------------------------------------------------------------------------------------------------------


async def batch_page(request: web.Request) -> web.Response:
    """Answer with the page of a batch."""
    one = await _found(request)
    batch, owner = one.batch, identity_of(request).only
    stored, files = context_of(request).app.store.files, []
    named = (("input", batch.input_file_id), ("output", batch.output_file_id), ("errors", batch.error_file_id))
    for name, id_ in named:
        if id_ is not None:
            files.append(_file(name, id_, await stored.find(id_, owner)))
    heads = [("file", ""), ("name", "wide"), ("size", "n")]
    model = batch.model or "a model that is not known yet"
    body = [
        tag("p", _badge(one.status), f" {batch.endpoint} of {model}", class_="state"),
        _actions(request, one),
        _progress(one),
        _errors(one),
        section("Files", table(heads, files, "Files of the batch")),
        section("Facts", _facts(one)),
    ]
    spoken = f"batch {batch.id} is {one.status}, {one.completed:,} of {one.total:,} requests completed"
    return respond(Page(batch.id, body, "/batches", spoken, ticks=batch.ended_as is None))


async def _found(request: web.Request) -> BatchProgress:
    id_ = request.match_info["batch"]
    one = await context_of(request).app.store.batches.find(id_, identity_of(request).only)
    if one is None:
        raise Refused(404, f"there is no batch {id_}")
    return one


def _actions(request: web.Request, one: BatchProgress) -> Markup:
    batch = one.batch
    if batch.ended_as is not None or batch.cancelling_at is not None:
        return Markup("")
    ask = f"Cancel batch {batch.id}? What is answered is kept and written to its output file."
    cancel = action(
        request, f"/batches/{batch.id}/cancel", "Cancel", ask=ask, done="It is being cancelled", danger=True
    )
    return tag("div", cancel, class_="actions")


def _progress(one: BatchProgress) -> Markup:
    usage = one.usage
    figures = [(f"{one.total:,}", "requests"), (f"{one.completed:,}", "completed"), (f"{one.failed:,}", "failed")]
    if usage is not None:
        figures += [(f"{usage.input_tokens:,}", "input tokens"), (f"{usage.output_tokens:,}", "output tokens")]
    return joined(progress(one.completed + one.failed, one.total, "requests answered"), tiles(figures))


def _errors(one: BatchProgress) -> Markup:
    errors = one.batch.errors
    if not errors:
        return Markup("")
    heads = [("line", "n"), ("code", ""), ("parameter", ""), ("message", "wide")]
    rows = [
        [str(error.line) if error.line is not None else "", error.code, error.param or "", error.message]
        for error in errors[:_ERRORS]
    ]
    return section("Errors", table(heads, rows, "Errors of the batch"), aside=count(len(errors), "error"))


def _file(name: str, id_: str, file: StoredFile | None) -> list[str]:
    if file is None:
        return [name, f"{id_} is deleted, or has expired", ""]
    link = tag("a", file.filename, href=f"/v1/files/{id_}/content", download=file.filename)
    return [name, joined(link, tag("span", id_, class_="small soft line")), size(file.bytes)]


def _facts(one: BatchProgress) -> Markup:
    batch, now = one.batch, time.time()
    facts: list[tuple[str, str]] = [("owner", batch.owner), ("created", moment(batch.created_at))]
    if batch.in_progress_at is not None:
        facts.append(("validated", f"{moment(batch.in_progress_at)}, {_after(batch.created_at, batch.in_progress_at)}"))
    if batch.ended_at is not None:
        facts.append(("ended", f"{moment(batch.ended_at)}, {_after(batch.created_at, batch.ended_at)}"))
    else:
        left = f", in {duration(batch.expires_at - now)}" if batch.expires_at > now else ""
        facts.append(("expires", f"{moment(batch.expires_at)}{left} (window {batch.completion_window})"))
    if one.run is not None:
        facts.append(("run", joined(run_link(one.run.id, f"run {one.run.id}"), f" of {one.run.job}")))
        if one.run.why or one.run.error:
            facts.append(("waits because", str(one.run.why or one.run.error)))
        if one.failed:
            facts.append(("failures", tag("a", "by cause", href=f"/runs/{one.run.id}/failures")))
    facts += [(f"metadata {name}", value) for name, value in (batch.metadata or {}).items()]
    return tag("dl", *(joined(tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts")


def _after(since: float, until: float) -> str:
    return f"{duration(max(0.0, until - since))} after it was created"


async def cancel_batch(request: web.Request) -> web.Response:
    """Ask for the end of a batch, and go back to its page."""
    id_ = request.match_info["batch"]
    try:
        found = await creation.cancel_batch(id_, identity_of(request).only, context_of(request).app.store)
    except BatchOver as over:
        raise Refused(409, str(over)) from over
    if found is None:
        raise Refused(404, f"there is no batch {id_}")
    raise web.HTTPSeeOther(f"/batches/{id_}")
