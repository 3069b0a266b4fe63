"""How fast training runs, and how much of the machine it uses.

Model FLOPs utilisation (MFU; Chowdhery et al. 2022, appendix B) is the arithmetic that the network
needs per second, over what the device could do at best.
"""

from __future__ import annotations

import time

import torch

# Dense bfloat16 matrix products per second by the makers' data sheets, in units of 1e12.
_GPU_PEAKS = {
    "H200": 989.4, "H100 PCIe": 756.0, "H100": 989.4, "H800": 989.4, "B200": 2250.0,
    "A100": 312.0, "A800": 312.0, "L40S": 362.0, "L4": 121.0, "A10G": 70.0, "A10": 125.0,
    "RTX 4090": 165.2, "RTX 3090": 71.0, "V100": 125.0, "T4": 65.0,
}  # fmt: skip


def peak_flops(device: torch.device, precision: torch.dtype) -> float:
    """Floating-point operations per second that matrix products could reach on a device.

    Of known GPUs this is the maker's number for bfloat16; otherwise it is measured, which takes
    about a fifth of a second.
    """
    if device.type == "cuda" and precision is torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, peak in _GPU_PEAKS.items():
            if known in name:
                return peak * 1e12
    return _measured(device, precision)


def _measured(device: torch.device, precision: torch.dtype) -> float:
    size = 4096 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device).to(precision)
    best = float("inf")
    deadline = time.perf_counter() + 0.2
    while time.perf_counter() < deadline:
        begun = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the GPU
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best
