"""orchestrator endpoints catalog: list the models of Hugging Face's Inference Catalog."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from orchestrator.app.endpoints.listing import catalog_of
from orchestrator.cli.command import print_json, without_store
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import Terminal, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.endpoints.hf_catalog import CatalogModel

_COLUMNS = ("model", "task", "license", "recipe", "accelerator", "engine", "file")


def catalog(
    context: typer.Context,
    task: Annotated[str | None, typer.Option("--task", help="text-generation, feature-extraction ...")] = None,
    accelerator: Annotated[str | None, typer.Option("--accelerator", help="cpu, gpu, neuron ...")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="vllm, sglang, tei, llamacpp ...")] = None,
    license_: Annotated[str | None, typer.Option("--license", help="Apache 2.0 ...")] = None,
    search: Annotated[str | None, typer.Option("--search", help="Part of the model's name.", metavar="TEXT")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most N models.", metavar="N")] = None,
    json: AsJson = False,
) -> None:
    """List the models of Hugging Face's Inference Catalog, and the recipes tested for them.

    A recipe is hardware, an engine and its settings. `endpoints deploy` takes a model or a recipe.
    """
    wanted = {"task": task, "accelerator": accelerator, "engine": engine, "license": license_, "search": search}
    models = without_store(context, partial(catalog_of, wanted, limit), json=json)
    if json:
        print_json({"models": [asdict(model) for model in models]})
    elif models:
        Terminal(width=1000).print(_table(models))
    else:
        say("the catalog has no such model")


def _table(models: Sequence[CatalogModel]) -> Table:
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ignore"
    for model in models:
        about = (model.repository, model.task, model.license)
        for recipe in model.recipes:
            table.add_row(*about, recipe.id, recipe.accelerator, recipe.engine, recipe.gguf_file or "-")
            about = ("", "", "")
    return table
