"""TensorBoard without PyTorch: its writer would import torch, where that is installed, only to look at its types."""

import sys
from pathlib import Path
from typing import Any


def open_board(folder: Path) -> Any:
    """A tensorboardX SummaryWriter on `folder`."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter(str(folder))
