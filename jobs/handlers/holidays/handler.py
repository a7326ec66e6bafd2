"""Texts -> emotions, except on holidays: the handler of Hugging Face's tutorial, as it runs there and here.

{"inputs": text, "date": "2026-12-25"}: on a holiday the answer is that it is one, whatever the text says.
"""

from typing import Any

import holidays
from transformers import pipeline


class EndpointHandler:
    """`path` is this folder, with the model in it."""

    def __init__(self, path: str = "") -> None:
        self.pipeline = pipeline("text-classification", model=path)
        self.holidays = holidays.country_holidays("US")

    def __call__(self, data: dict[str, Any]) -> Any:
        """Look at the date, if there is one; else ask the model."""
        date = data.pop("date", None)
        if date is not None and date in self.holidays:
            return [{"label": "happy", "score": 1}]
        return self.pipeline(data["inputs"])
