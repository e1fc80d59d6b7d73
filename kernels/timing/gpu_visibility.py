"""A GPU that torch does not see: hidden on purpose, or listed by a driver that this torch cannot use."""

import os

import torch

from kernels.timing.nvidia_smi import Torch, find_driver, hidden_on_purpose, why_unusable


def hide_gpus() -> None:
    """Hide every GPU from this process and those that it starts; torch must not have used CUDA yet."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def unseen_gpu() -> str | None:
    """One line where the driver lists a GPU that torch cannot use and that nobody hides; None elsewhere."""
    if torch.cuda.is_available() or hidden_on_purpose() or (driver := find_driver()) is None:
        return None
    return why_unusable(driver, Torch(torch.__version__, torch.version.cuda, torch.version.hip, _torch_error()))


def _torch_error() -> str:
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return str(error).strip().split("\n")[0]
    return "it gives no reason"
