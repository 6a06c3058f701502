"""Files that training leaves behind: ``checkpoint.pt`` for the quantizer, ``resume.pt`` for itself.

Both are written to a temporary name and renamed, so a reader never sees half a file, and both carry a
digest of their content. They hold tensors and plain values only and load with ``weights_only=True``:
nothing in a checkpoint is ever executed.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audit.contracts import InputError

FAMILY = "golf"


def content_digest(value: Any) -> str:
    """sha256 over nested dicts, lists, tensors and plain values, independent of dict order."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        dense = value.detach().cpu().contiguous()
        digest.update(f"tensor {dense.dtype} {tuple(dense.shape)}".encode())
        digest.update(dense.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)}".encode())
        for key in sorted(value):
            digest.update(f"key {key!r}".encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)}".encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(f"{type(value).__name__} {value!r}".encode())


def save(path: Path, content: dict[str, Any]) -> str:
    """Writes ``content`` plus its digest atomically; returns the digest."""
    digest = content_digest(content)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as handle:
        torch.save(content | {"digest": digest}, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, path)
    return digest


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what ``save`` wrote. Raises InputError when it is missing, broken or altered."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or "digest" not in content:
        raise InputError(f"{path}: not a checkpoint of this program (no digest)")
    claimed = content.pop("digest")
    if content_digest(content) != claimed:
        raise InputError(f"{path}: content does not match its digest; the file was altered or damaged")
    return content
