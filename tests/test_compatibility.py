"""The table in docs/local.md that compares us with Hugging Face's toolkit: each of its rows has a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TITLE = "| | the toolkit (0.5.6, measured) | here | why |\n|---|---|---|---|\n"
HANDLERS, SERVE = "endpoints/test_handlers.py", "cli/test_handler.py"
ROUTES = f"{SERVE}::test_the_routes_match_the_toolkit"
SLASHES = f"{SERVE}::test_a_trailing_slash_is_redirected_as_in_the_toolkit"
MADE_ONCE = f"{HANDLERS}::test_it_is_created_once_with_its_folder_first_on_the_path_and_the_toolkits_variables"
NEEDED = f"{HANDLERS}::test_a_folder_needs_a_handler_or_a_task"
TESTS = {
    "class, `__init__`, path": MADE_ONCE,
    "its module's name": MADE_ONCE,
    "`HF_DEFAULT_PIPELINE_NAME`, `HF_MODULE_NAME`": f"{HANDLERS}::test_no_variable_names_another_file_or_class",
    "handler and task": MADE_ONCE,
    "token": f"{SERVE}::test_requests_without_the_token_are_refused",
    "environment": f"{HANDLERS}::test_it_gets_no_secret_that_is_not_listed",
    "`pipeline.py` with `PreTrainedPipeline`": NEEDED,
    "neither": NEEDED,
    (
        "tasks `sentence-embeddings`, `sentence-similarity`, `sentence-ranking`, `text-ranking`, `text-to-image`"
    ): "test_compatibility.py::test_tasks_of_the_toolkit_that_no_pipeline_does_are_unknown",
    "a handler on the hub": NEEDED,
    "`requirements.txt`": (
        "worker/test_handler_environment.py::test_requirements_come_from_the_environment_and_other_packages_from_ours"
    ),
    "routes": ROUTES,
    "`/predict/`, `/health/`": SLASHES,
    "GET `/metrics`": ROUTES,
    "at once": f"{SERVE}::test_calls_run_one_at_a_time_while_health_still_answers",
    "other keys of the body": (
        f"{HANDLERS}::test_a_bare_input_becomes_inputs_and_an_object_with_inputs_is_passed_unchanged"
    ),
    "content type": ROUTES,
    "`Content-Encoding: gzip`, `deflate`": f"{SERVE}::test_compressed_bodies_are_read_and_damaged_ones_refused",
    "`image/...`": ROUTES,
    "`audio/...`": ROUTES,
    "`application/pdf`, `application/octet-stream`": ROUTES,
    "`text/...`, forms, no content type": ROUTES,
    "body without `inputs` or `instances`": ROUTES,
    "empty body, or no JSON": ROUTES,
    "query string": ROUTES,
    "`candidateLabels`": (
        "worker/test_tasks.py::test_labels_may_have_the_name_from_the_toolkit_and_missing_labels_are_reported"
    ),
    "`generation_parameters`": ("worker/test_tasks.py::test_generation_settings_may_have_the_name_from_the_toolkit"),
    "`batch_size` among the `parameters`": (
        "worker/test_tasks.py::test_a_batch_size_parameter_is_accepted_and_ignored"
    ),
    "base64 beside `parameters` for audio tasks": (
        f"{HANDLERS}::test_base64_beside_parameters_is_decoded_if_the_task_takes_recordings"
    ),
    "`async def __call__`": f"{HANDLERS}::test_async_calls_are_always_awaited_in_the_same_event_loop",
    "answer: arrays, images, tuples, NaN": f"{HANDLERS}::test_answers_are_written_as_the_toolkit_writes_them",
    "answer: sets, generators, tensors, keys that are no text": (
        f"{HANDLERS}::test_an_answer_that_the_toolkit_cannot_write_is_refused_with_a_remedy"
    ),
    "a list of `inputs` for a task": "worker/test_tasks.py::test_a_list_as_task_input_is_refused_by_name",
    "`Accept`": ROUTES,
    "`Accept` that is empty, or has a charset": ROUTES,
    "`Accept: image/jpg`, `image/x-image`": ROUTES,
    "`Accept: image/...`": ROUTES,
    "a bug in the handler": ROUTES,
    "out of memory in a call": (f"{HANDLERS}::test_a_call_that_runs_out_of_memory_fails_and_the_next_one_does_not"),
    "input that the handler refuses": ROUTES,
    "the text of an error": ROUTES,
    "`sys.exit()` in the handler": ROUTES,
    "a crash (segmentation fault)": (
        f"{HANDLERS}::test_a_run_loses_only_the_items_that_kill_hang_or_break_the_handler"
    ),
    "while it loads": f"{SERVE}::test_a_handler_that_is_still_loading_answers_503",
    "a list of inputs in one call": (
        f"{HANDLERS}::test_one_call_is_one_request_unless_the_handler_declares_that_it_takes_lists"
    ),
}


def rows() -> list[str]:
    text = (ROOT / "docs" / "local.md").read_text(encoding="utf-8")
    table = text[text.index(TITLE) + len(TITLE) :].partition("\n\n")[0]
    return [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()]


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    assert rows() == list(TESTS)
    for place in TESTS.values():
        file, _, name = place.partition("::")
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), place


@pytest.mark.parametrize(
    "task", ["sentence-embeddings", "sentence-similarity", "sentence-ranking", "text-ranking", "text-to-image"]
)
def test_tasks_of_the_toolkit_that_no_pipeline_does_are_unknown(tmp_path: Path, task: str) -> None:
    pytest.importorskip("transformers", reason="needs the `local` extra")
    from orchestrator.worker.model import LoadFailed, ModelSettings
    from orchestrator.worker.tasks import find_task

    assert f"`{task}`" in "".join(rows())
    with pytest.raises(LoadFailed, match=f"unknown task '{task}'; this worker knows .*feature-extraction"):
        find_task(ModelSettings(task=task, model=str(tmp_path)))
