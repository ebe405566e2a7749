"""Which number format a run computes in, and why."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]
_NATIVE = ("avx512_bf16", "amx_bf16")


def choose_precision(asked: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """`auto` is bf16 only where the hardware computes in it.

    On a CPU without bf16 units bf16 autocast ran 20 times slower than fp32.
    """
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and has_native_bf16(_cpu_flags()) else "fp32"


def has_native_bf16(flags: str) -> bool:
    """Whether a CPU's flags, as /proc/cpuinfo lists them, name a bf16 unit."""
    return any(flag in flags.split() for flag in _NATIVE)


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ""  # no such list on macOS and Windows: fp32 is always right
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to the precision; does nothing for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
