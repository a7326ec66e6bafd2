"""The number format in which a local model computes vectors if the user leaves that to us (`dtype="auto"`).

What the machine decides. `dtype="auto"` of vectors follows the CPU: `auto_dtype` decides from its flags. The choice
is in the endpoint's identity only if it is not the dtype of the weights, so that earlier hashes stay. An endpoint
with such a choice is a `ChoosesByMachine`: before a run or a plan, `engine/run/choices.py` gives it the identities of
the job's earlier runs, and it chooses as the latest one with the same settings did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

AUTO = "auto"  # the dtype of the weights
BFLOAT16 = "bfloat16"
CHOSEN = "auto_dtype"  # in an endpoint's identity: the dtype that was chosen, if it is not that of the weights
_VECTORS = "feature-extraction"
_AMX = "amx_bf16"  # as /proc/cpuinfo has it


def auto_dtype(task: str | None, flags: Collection[str]) -> str:
    """Return the dtype for this task on a CPU with these flags.

    bfloat16 is computed 2.4 times as fast by a CPU with AMX, and up to 3.4 times slower by any other.
    """
    return BFLOAT16 if task == _VECTORS and _AMX in flags else AUTO


def chosen_before(identity: Mapping[str, object], earlier: Sequence[Mapping[str, object]]) -> str | None:
    """Return what was chosen the last time that everything else was as in this identity; None if it never was.

    `earlier`: identities of the job's runs, the latest first.
    """
    rest = _without_choice(identity)
    return next((str(one.get(CHOSEN, AUTO)) for one in earlier if _without_choice(one) == rest), None)


def _without_choice(identity: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in identity.items() if name != CHOSEN}
