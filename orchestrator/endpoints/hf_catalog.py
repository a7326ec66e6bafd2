"""Hugging Face's Inference Catalog: models with the hardware, engine and settings that have been tested for them."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.hf_calls import base_url
from orchestrator.endpoints.hf_hardware import text_at

if TYPE_CHECKING:
    from collections.abc import Mapping

CATALOG_URL = "https://endpoints.huggingface.co/api/v1/catalog"
CATALOG_URL_ENV = "ORCHESTRATOR_HF_CATALOG_URL"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_RECIPE = re.compile(r"[\w-]+", re.ASCII)


def catalog_url() -> str:
    """Return the catalog's base URL: the one in the environment, else Hugging Face's own."""
    return base_url(CATALOG_URL_ENV, CATALOG_URL)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A tested way to serve a model. `gguf_file`: the file that llama.cpp serves, None for other engines."""

    id: str
    accelerator: str
    engine: str
    gguf_file: str | None
    revision: str | None

    @classmethod
    def read(cls, document: object) -> Recipe:
        """Read the catalog's JSON. Raises `ValueError` if it is not a recipe."""
        if not text_at(document, "publicId"):
            raise ValueError("there is a recipe without an id in it")
        return cls(
            id=text_at(document, "publicId"),
            accelerator=text_at(document, "accelerator"),
            engine=text_at(document, "engineType"),
            gguf_file=text_at(document, "ggufFile") or None,
            revision=text_at(document, "revision") or None,
        )


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A model of the catalog, with its recipes."""

    repository: str
    task: str
    license: str
    created_at: str
    recipes: tuple[Recipe, ...]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> CatalogModel:
        """Read the catalog's JSON. Raises `ValueError` if it is not a model."""
        recipes = document.get("recipes")
        if not isinstance(recipes, list) or not text_at(document, "repoId"):
            raise ValueError("there is no model in it")
        return cls(
            repository=text_at(document, "repoId"),
            task=text_at(document, "task"),
            license=text_at(document, "license"),
            created_at=text_at(document, "createdAt"),
            recipes=tuple(map(Recipe.read, recipes)),
        )


@dataclass(frozen=True, slots=True)
class Deployment:
    """What to deploy: a recipe, or a model by its default recipe or its recipe for an accelerator or GGUF file."""

    repository: str | None = None
    _: KW_ONLY
    recipe: str | None = None
    accelerator: str | None = None
    gguf_file: str | None = None

    def __post_init__(self) -> None:
        if (self.repository is None) == (self.recipe is None):
            raise UsageError("deploy either a repository or a recipe")
        if self.recipe is not None and (self.accelerator is not None or self.gguf_file is not None):
            raise UsageError("a recipe has its own accelerator and GGUF file: leave these out")
        if self.repository is not None and not _REPOSITORY.fullmatch(self.repository):
            raise UsageError(f"a repository is ORG/MODEL, not {self.repository!r}")
        if self.recipe is not None and not _RECIPE.fullmatch(self.recipe):
            raise UsageError(f"{self.recipe!r} is not the id of a recipe")

    def __str__(self) -> str:
        return f"recipe {self.recipe}" if self.repository is None else self.repository

    @property
    def url(self) -> str:
        """The URL that deploys it."""
        what = f"recipe/{self.recipe}" if self.repository is None else f"model/{self.repository}"
        return f"{catalog_url()}/{what}/deploy"

    def body(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the JSON that deploys it under this name."""
        chosen = {"accelerator": self.accelerator, "ggufFile": self.gguf_file}
        given = {key: value for key, value in chosen.items() if value is not None}
        return {"namespace": namespace, **given, "config": {"name": name}}
