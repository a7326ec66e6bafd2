"""Asynchronous batch inference: the words a job file imports."""

from orchestrator.domain.backoff import Backoff
from orchestrator.domain.policy import Policy
from orchestrator.job import Job, Weighted

__all__ = ["Backoff", "Job", "Policy", "Weighted"]
