"""What a request to `/api` may say: queries and bodies, checked here and described in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.domain.costs import By  # noqa: TC001 - pydantic reads annotations at run time
from orchestrator.domain.item import ItemState  # noqa: TC001 - same

Number = Annotated[int, Field(ge=0, lt=2**63)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Word = Annotated[str, Field(min_length=1, max_length=500)]  # a request's first line has at most 8190 bytes
Moment = Annotated[str, Field(min_length=1, max_length=100)]


class RequestModel(BaseModel):
    """A query or a body."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(RequestModel):
    """Nothing more than the path."""


class RunsAsked(RequestModel):
    """Which runs."""

    job: Annotated[Word | None, Field(description="Only runs of this job.")] = None
    state: Annotated[
        Literal["running", "held", "ingesting", "open", "finished", "failed", "stopped", "cancelled", "superseded"]
        | None,
        Field(description="Only runs in this state."),
    ] = None
    before: Annotated[Number | None, Field(description="The next page: `next` of the page before.")] = None
    limit: Limit = 20


class ItemsAsked(RequestModel):
    """Which items of a run."""

    state: Annotated[ItemState | None, Field(description="Only items in this state.")] = None
    like: Annotated[
        Word | None, Field(description="Only items that were discarded for the same cause as the item with this id.")
    ] = None
    noted: Annotated[bool, Field(description="Only items with a note: input or answer cut, answer empty ...")] = False
    after: Annotated[int, Field(ge=-1, lt=2**32, description="The next page: `next` of the page before.")] = -1
    limit: Limit = 100


class FailuresAsked(RequestModel):
    """How many causes."""

    limit: Limit = 10


class ReadingsAsked(RequestModel):
    """How many measurements of a run."""

    most: Annotated[int, Field(ge=2, le=4000, description="Of more, an even sample.")] = 500
    after: Annotated[
        float | None, Field(allow_inf_nan=False, description="All those after this moment, in place of a sample.")
    ] = None


class CostsAsked(RequestModel):
    """Which costs."""

    by: By = "job"
    days: Annotated[int | None, Field(ge=1, le=36_500, description="Only the last days.")] = None


class EndpointsAsked(RequestModel):
    """How far back."""

    days: Annotated[int, Field(ge=1, le=36_500, description="Awake windows of the last days.")] = 1


class ReportAsked(RequestModel):
    """A period, or a run."""

    since: Annotated[
        Moment | None, Field(description="Start of the period: yesterday (the default), today, 12h, 2d, 2026-11-20.")
    ] = None
    run: Annotated[
        Word | None, Field(description="A run's number, or a job's name, in place of `since`; not both.")
    ] = None


class Tuning(RequestModel):
    """How many requests a run may have in flight."""

    concurrency: Annotated[int | None, Field(ge=1, lt=2**31, description="null: the policy's own value.")]


class Priority(RequestModel):
    """Which runs go first."""

    priority: Annotated[int, Field(ge=-(2**63), lt=2**63, description="Higher goes first; the default of runs is 0.")]


class Retry(RequestModel):
    """Which discarded items to ask again."""

    like: Annotated[
        Word | None,
        Field(description="Only those that failed for the same cause as the item with this id; otherwise all."),
    ] = None


class Submission(RequestModel):
    """A run to queue: of a job file in a folder of `[serve] jobs`, or of a job as JSON (docs/job_spec.md)."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["jobfile"], "properties": {"jobfile": {"type": "string"}, "spec": {"type": "null"}}},
                {"required": ["spec"], "properties": {"spec": {"type": "object"}, "jobfile": {"type": "null"}}},
            ]
        }
    )

    jobfile: Annotated[Word | None, Field(description="Its path, or its name in one of the folders.")] = None
    spec: Annotated[dict[str, object] | None, Field(description="A job without references to Python files.")] = None
    at: Annotated[Moment, Field(description="Not before: +2h, 22:00, 22:00 Europe/Paris, 2026-11-22 03:00.")] = "+0s"
    deadline: Annotated[Moment | None, Field(description="When the answers are needed.")] = None
    priority: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    key: Annotated[
        Word | None, Field(description="Submitting again with the same key queues no second run, unless it failed.")
    ] = None
    limit: Annotated[Number | None, Field(description="Only the first rows.")] = None
