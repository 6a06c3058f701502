"""Fetches the contest's published shards and tokenizer from the Hugging Face hub.

The published repository carries a manifest that names, per dataset, how many shards there are and
which tokenizer belongs to it. Files land in the contest's own layout (``datasets/<name>/``,
``tokenizers/``), so its scripts run on the folder unchanged. A transfer cut short goes on where it
stopped; a file that is already complete is not fetched again; every file's SHA-256 is compared with
the hub's record before it takes its final name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from audit.contracts import InputError
from harness.tokens.shards import file_digest, read_shard

REPOSITORY = "willdepueoai/parameter-golf"
REMOTE_ROOT = "datasets"
DEFAULT_TRAIN_SHARDS = 80
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What the hub records of a file: its size in bytes and, for large files, its SHA-256."""

    size: int
    sha256: str | None


class Hub(Protocol):
    """The two things asked of a hub; tests put a folder in its place."""

    def describe(self, path: str) -> Remote: ...

    def download(self, path: str, folder: Path) -> Path:
        """Fetches ``path`` into ``folder`` (resuming), returns where the file lies."""
        ...


class HuggingFace:
    """A dataset repository on the Hugging Face hub at one revision."""

    def __init__(self, repository: str = REPOSITORY, revision: str | None = None) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise InputError(
                "fetching needs huggingface_hub; install it with: pip install 'parameter-golf-referee[eval]'"
            ) from None
        # Its retries would be reported line by line; one error line at the end says more.
        huggingface_hub.logging.set_verbosity_error()
        self._hub = huggingface_hub
        self.repository, self.revision = repository, revision

    def describe(self, path: str) -> Remote:
        found: list[Any] = self._asking(
            lambda: self._hub.HfApi().get_paths_info(
                self.repository, [path], repo_type="dataset", revision=self.revision
            )
        )
        if not found:
            raise InputError(f"{self.repository}: no file {path} in this repository")
        lfs = getattr(found[0], "lfs", None)
        return Remote(size=int(found[0].size), sha256=lfs.sha256 if lfs is not None else None)

    def download(self, path: str, folder: Path) -> Path:
        # huggingface_hub keeps an unfinished file under the local folder and goes on from its length.
        return Path(
            self._asking(
                lambda: self._hub.hf_hub_download(
                    self.repository, path, repo_type="dataset", revision=self.revision, local_dir=folder
                )
            )
        )

    def _asking(self, call: Callable[[], Any]) -> Any:
        from huggingface_hub import errors

        try:
            return call()
        except errors.RepositoryNotFoundError:
            raise InputError(f"{self.repository}: no such dataset on the hub, or no access to it") from None
        except errors.RemoteEntryNotFoundError as error:
            raise InputError(f"{self.repository}: {_first_line(error)}") from None
        except Exception as error:
            # The hub's client raises its transport's own classes, which change between its versions.
            raise InputError(
                f"cannot reach the Hugging Face hub for {self.repository} ({type(error).__name__}: {_first_line(error)}); "
                "run the same command again when connected (it resumes), or build shards from text at hand with: "
                "referee data build"
            ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file to fetch: path on the hub, place under the output folder."""

    remote: str
    local: Path


def plan_fetch(
    manifest: dict[str, Any], variant: str, train_shards: int, *, remote_root: str = REMOTE_ROOT
) -> list[Item]:
    """Files of one variant (``sp1024``, ``byte260``, …): tokenizer, all validation shards, the first train shards."""
    name = f"fineweb10B_{variant}"
    datasets = {d.get("name"): d for d in manifest.get("datasets", [])}
    entry = datasets.get(name)
    if entry is None:
        known = ", ".join(sorted(str(n).removeprefix("fineweb10B_") for n in datasets)) or "none"
        raise InputError(f"variant {variant!r} is not in the published manifest; it has: {known}")
    stats = entry.get("stats") or {}
    have = int(stats.get("files_train", 0))
    if not 0 <= train_shards <= have:
        raise InputError(f"{variant} has {have} training shards, {train_shards} asked for")
    owned = next(
        (t for t in manifest.get("tokenizers", []) if t.get("name") == entry.get("tokenizer_name")), None
    )
    if owned is None:
        raise InputError(f"the published manifest names no tokenizer for {variant}")
    files = [str(owned[k]) for k in ("model_path", "vocab_path", "path") if owned.get(k)]
    for split, count in (("val", int(stats.get("files_val", 0))), ("train", train_shards)):
        files += [f"datasets/{name}/fineweb_{split}_{i:06d}.bin" for i in range(count)]
    return [Item(remote=f"{remote_root}/{f}", local=Path(_inside(f))) for f in files]


def _inside(path: str) -> str:
    """A manifest must not place files outside the output folder."""
    if path.startswith("/") or ".." in Path(path).parts:
        raise InputError(f"the published manifest names an unsafe path: {path}")
    return path


def fetch(
    out: str | os.PathLike[str],
    *,
    hub: Hub,
    variant: str = "sp1024",
    train_shards: int = DEFAULT_TRAIN_SHARDS,
    remote_root: str = REMOTE_ROOT,
) -> Iterator[tuple[int, int, Item, str]]:
    """Fetches one variant into ``out``; yields (done, of, item, "present" | "fetched") after each file.

    Raises `InputError` offline, on a digest that differs from the hub's, and on a malformed shard.
    """
    folder = Path(out)
    staging = folder / _PARTIAL
    # Asking for the record first fails at once when offline; a download would retry for half a minute.
    hub.describe(f"{remote_root}/manifest.json")
    manifest_file = hub.download(f"{remote_root}/manifest.json", staging)
    try:
        manifest = json.loads(manifest_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{manifest_file}: the published manifest is unreadable: {error}") from None
    items = plan_fetch(manifest, variant, train_shards, remote_root=remote_root)
    for done, item in enumerate(items, start=1):
        target = folder / item.local
        expected = hub.describe(item.remote)
        if target.is_file() and _same(target, expected):
            yield done, len(items), item, "present"
            continue
        arrived = hub.download(item.remote, staging)
        if not _same(arrived, expected):
            arrived.unlink(missing_ok=True)
            raise InputError(
                f"{item.remote}: what arrived differs from the hub's record (size or SHA-256); run again"
            )
        if target.suffix == ".bin":
            read_shard(arrived)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(arrived, target)
        yield done, len(items), item, "fetched"


def _same(path: Path, expected: Remote) -> bool:
    if path.stat().st_size != expected.size:
        return False
    return expected.sha256 is None or file_digest(path) == expected.sha256
