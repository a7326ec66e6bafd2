"""A notebook in a real Jupyter kernel, with a workplace as its folder."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tests.commands import DEADLINE, POLL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.commands import Workplace


class Notebook(NotebookClient):
    """Executes cells, and keeps the messages that they send."""

    def __init__(self, workplace: Workplace) -> None:
        kernels = KernelSpecManager(kernel_dirs=[str(workplace.folder / "kernels")])
        kernel = AsyncKernelManager(kernel_name="this", kernel_spec_manager=kernels)
        folder = {"metadata": {"path": str(workplace.folder)}}
        empty = new_notebook()  # type: ignore[no-untyped-call] # nbformat has no types
        super().__init__(empty, kernel, resources=folder, allow_errors=True, timeout=int(DEADLINE))
        self.kernel = kernel
        self.messages: list[Any] = []

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Keep a message, and do what nbclient does with it."""
        self.messages.append(msg)
        return super().process_message(msg, cell, cell_index)

    async def cell(self, source: str) -> list[Any]:
        """Execute a cell and return its outputs."""
        cell = new_code_cell(source)  # type: ignore[no-untyped-call] # nbformat has no types
        self.nb.cells.append(cell)
        await self.async_execute_cell(cell, len(self.nb.cells) - 1)
        outputs: list[Any] = cell.outputs
        return outputs

    async def shows(self, words: str) -> None:
        """Wait until a cell's display is updated to this text."""
        with anyio.fail_after(DEADLINE):
            while not any(words in text for text in self.updates()):
                await anyio.sleep(POLL)

    def updates(self) -> list[str]:
        """Return the texts to which displays have been updated."""
        of = [message["content"] for message in self.messages if message["msg_type"] == "update_display_data"]
        return [content["data"]["text/plain"] for content in of]

    async def interrupt(self) -> None:
        """Interrupt the kernel, as the button in the notebook does."""
        await self.kernel.interrupt_kernel()


@asynccontextmanager
async def notebook(workplace: Workplace) -> AsyncIterator[Notebook]:
    """Start a kernel of this environment, and end it when the block ends."""
    spec = workplace.folder / "kernels" / "this"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "this", "language": "python"}))
    opened = Notebook(workplace)
    environment = workplace.environment() | {"ORCHESTRATOR_DB": str(workplace.ledger)}
    async with opened.async_setup_kernel(env=environment, cleanup_kc=True):
        yield opened
