"""How text is generated: greedily unless a request says otherwise, with settings where each task expects them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

from orchestrator.worker.model import Parameters, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

GENERATING = frozenset(
    {"any-to-any", "automatic-speech-recognition", "image-text-to-text", "text-generation"}
)  # pipelines that sample if the model's generation_config.json says so
_TEXT_TO_TEXT = ("summarization", "text2text-generation", "text-generation", "translation")
_NESTED = frozenset({"any-to-any", "image-text-to-text"})  # of these, the ones that nest most settings
_SETTINGS = frozenset(vars(GenerationConfig())) - {"max_new_tokens"}
_NEW_TOKENS = 256  # if neither the request nor the model limits the length of an answer
_UNSAID = (None, 20)  # 20 was the library's default, which models saved with theirs


def new_tokens(task: str, parameters: Parameters) -> int | None:
    """Return the most tokens by which a text is continued, or None if the task does not continue texts."""
    if not task.startswith(_TEXT_TO_TEXT):
        return None
    try:
        said = {**_nested(parameters), **parameters}.get("max_new_tokens")
    except Rejected:  # whatever calls the model sets it
        return _NEW_TOKENS
    return said if isinstance(said, int) and said > 0 else _NEW_TOKENS


def _nested(parameters: Parameters) -> Parameters:
    """Return `generate_kwargs`, which Hugging Face's toolkit calls `generation_parameters`.

    Raises `Rejected` if it is not an object.
    """
    found: Parameters = {}
    for name in ("generation_parameters", "generate_kwargs"):
        given = parameters.get(name) or {}
        if not isinstance(given, dict):
            raise Rejected(f"{name} must be an object")
        found |= given
    return found


def _apart(parameters: Parameters) -> tuple[Parameters, Parameters]:
    """Return what is in `generate_kwargs`, and what is beside it."""
    names = ("generation_parameters", "generate_kwargs")
    return _nested(parameters), {name: value for name, value in parameters.items() if name not in names}


def reproducible(task: str, parameters: Parameters, *, generates: bool) -> Parameters:
    """Return a copy of the parameters for a pipeline: `do_sample` is off unless they turn it on.

    Even if a pipeline takes generation settings only in `generate_kwargs`, a request may have them beside it.
    """
    if task not in {*GENERATING, "text-to-audio"} or not generates:
        return dict(parameters)
    nested, settings = _apart(parameters)
    if task == "text-to-audio":  # samples by design
        return {**settings, **({"generate_kwargs": nested} if nested else {})}
    if task in _NESTED:
        nested |= {key: settings.pop(key) for key in _SETTINGS & settings.keys()}
        return {**settings, "generate_kwargs": {"do_sample": False, **nested}}
    return {"do_sample": False, **nested, **settings}


def generation_settings(
    model: Any,
    tokenizer: Any,
    defaults: Mapping[str, object],
    given: Parameters,
) -> dict[str, Any]:
    """Return the arguments of `generate`: `given` overrides its `generate_kwargs`, and these the defaults."""
    nested, beside = _apart(given)
    settings = {"do_sample": False, **defaults, **nested, **beside}
    stop = settings.pop("stop_sequence", None)
    if stop is not None:
        settings |= {"stop_strings": stop, "tokenizer": tokenizer}
    own_length = getattr(model.generation_config, "max_length", None)
    own_new = getattr(model.generation_config, "max_new_tokens", None)
    if not {"max_length", "max_new_tokens"} & settings.keys() and own_length in _UNSAID and own_new is None:
        settings["max_new_tokens"] = _NEW_TOKENS
    if "max_new_tokens" in settings:
        settings.pop("max_length", None)  # a task's default; `generate` would warn about two
    return settings


def own_tokens(model: Any, rows: Iterable[torch.Tensor]) -> Iterable[torch.Tensor]:
    """Return each row up to its end; what follows is padding to the length of its neighbours."""
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    for row in rows:
        end = next((place for place, token in enumerate(row.tolist()) if place and token in ends), len(row))
        yield row[: end + 1]
