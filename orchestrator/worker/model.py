"""What the worker needs of a model: how to prepare requests for it, and how to call it with a batch."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Parameters: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which model to load, and how. `device` None is the first accelerator, or the CPU if there is none.

    `imports`: modules to import first, as NAME=FOLDER. `handler`: the model's handler.py serves it.
    """

    task: str
    model: str
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    threads: int = 1
    trust_remote_code: bool = False
    imports: tuple[str, ...] = ()
    handler: bool = False


_OUT_OF_MEMORY = ("out of memory", "outofmemory", "allocate memory", "not enough memory")  # torch's and the systems'
TOO_LITTLE_MEMORY = "see what else uses the memory (nvidia-smi), load a smaller model, or load it in a narrower dtype"


class LoadFailed(Exception):
    """The model cannot be served; the message is one line for the user."""


class Rejected(Exception):
    """There is no answer to this input; others are unaffected. `kind`, a `FailureKind`, says whose fault that is."""

    def __init__(self, message: str, kind: str = "rejected") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class PreparedInput:
    """An input as the model takes it. `length` is in tokens: exact, or a fair guess. `cut`: to so many tokens."""

    value: Any
    length: int
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device. `processor`: turns inputs into tensors, often a tokenizer."""

    task: str
    model: Any
    processor: Any
    budget: int
    info: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class AtLimit:
    """An output that ends at its token limit."""

    output: object


class Model(Protocol):
    """A loaded model.

    One thread calls it. Another thread prepares the next batch meanwhile: `prepare` and `collate` may run while `call`
    does.
    """

    task: str
    info: Mapping[str, object]
    budget: int  # padded tokens in one call, to begin with

    def prepare(self, values: Sequence[object], parameters: Parameters) -> Sequence[PreparedInput | Rejected]:
        """Prepare inputs that share their parameters, one by one.

        May raise anything; then each input is prepared alone, so that only the offending one has no answer.
        """
        ...

    def collate(self, values: Sequence[Any], parameters: Parameters) -> Any:
        """Make one batch of prepared values. May raise anything."""
        ...

    def call(self, batch: Any, parameters: Parameters) -> Sequence[object]:
        """Answer a batch, in order, with `AtLimit` for a text that was cut.

        May raise anything; then no value of the batch has an answer.
        """
        ...


def one_line(error: BaseException) -> str:
    """Return an error's type and message in one line, at most 500 characters, always valid UTF-8."""
    try:
        text = str(error).encode(errors="replace").decode()
    except Exception:
        text = "an error that has no text"
    return f"{type(error).__name__}: {' '.join(text.split())}"[:500]


def with_line(error: BaseException) -> str:
    """Return the same with the line that raised it: "ValueError: no label (zero_shot_classification.py, line 40)"."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{one_line(error)} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else one_line(error)
    )


def as_rejected(error: BaseException) -> Rejected:
    """Return why there is no answer."""
    return error if isinstance(error, Rejected) else Rejected(with_line(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was too little, the device's or the machine's."""
    text = one_line(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)
