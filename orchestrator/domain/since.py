"""since: from when on a person wants to know, as typed on a command line."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

from orchestrator.domain.age import seconds_of


def since(text: str, now: float, zone: tzinfo | None = None) -> float:
    """The moment meant by `yesterday`, `today`, `12h`, `2d`, `2026-11-20` or `2026-11-20T18:00`, in seconds since 1970.

    Days begin at midnight in `zone` (None: that of this machine), and what names no zone is in it. `ValueError` in one
    line for anything else, and for what lies in the future.
    """
    moment = _moment(text.strip().lower(), now, zone)
    if moment > now:
        raise ValueError(f"{text!r} lies in the future")
    return moment


def _moment(text: str, now: float, zone: tzinfo | None) -> float:
    if text in {"today", "yesterday"}:
        # by the calendar, not by 24 hours: a day on which clocks change has 23 or 25
        shown = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        return _read(shown - timedelta(days=text == "yesterday"), zone)
    try:
        return now - seconds_of(text)
    except ValueError:
        pass
    try:
        return _read(datetime.fromisoformat(text.upper()), zone)
    except ValueError:
        forms = "yesterday, today, 12h, 2d, 2026-11-20 or 2026-11-20T18:00"
        raise ValueError(f"{text!r} is not understood; write {forms}") from None


def _read(shown: datetime, zone: tzinfo | None) -> float:
    return (shown if shown.tzinfo is not None or zone is None else shown.replace(tzinfo=zone)).timestamp()
