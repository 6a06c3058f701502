"""What one process of a sweep does: audit one ref, submission by submission."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from audit.context import Options
from audit.contracts import InputError
from audit.model import Obligation, Submission

#: Address space of one worker. A submission that needs more is lost alone, not with the machine.
MAX_MEMORY = 6 * 2**30
#: Blocks of memory (80 bytes each, on average) that submissions may leave behind before cycles among them are looked
#: for. A submission leaves 70,000 in cycles, and builds and frees a million that are in none.
MAX_LEFT = 2_000_000
#: blocks in use after the last look
_blocks = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One ref. ``skip``: submissions already dealt with, when a process died over one of them."""

    repo: str
    rev: str
    ref: str
    options: Options
    key: str
    skip: int = 0
    #: folder of modules that other refs of the same sweep parsed (`audit.lower.store`)
    modules: str | None = None


@lru_cache(maxsize=1)
def _repository(path: str) -> Any:
    from audit.source import git

    # Python looks for cycles while a submission's trees are there, again and again and nearly in vain. `_tidy` does so
    # between submissions; this only bounds what one submission may leave.
    gc.set_threshold(2_000_000, 5, 5)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return git.open_repository(path)


def _tidy() -> None:
    """Frees the cycles that submissions left behind, once they are many."""
    global _blocks
    if sys.getallocatedblocks() - _blocks > MAX_LEFT:
        gc.collect()
        _blocks = sys.getallocatedblocks()


def audit_ref(task: Task) -> Iterator[dict[str, Any]]:
    """Messages: ``begin`` with the identity of a submission, then ``line`` with its result."""
    from audit.engine import audit_files
    from audit.lower import store
    from audit.source import open_git
    from audit.sweep import alike

    store.keep_in(task.modules)
    try:
        opened = open_git(_repository(task.repo), task.rev, task.options.base, task.ref)
    except InputError as error:
        yield {"event": "line", "line": Submission(target=task.ref, reason=str(error)).as_json()}
        return
    for files in opened[task.skip :]:
        _tidy()
        blank = Submission(target=task.ref, commit=files.commit, primary=files.primary, reason=files.reason)
        yield {"event": "begin", "line": blank.as_json()}
        if (known := alike.found(files)) is not None:
            yield {"event": "line", "line": known}
            continue
        try:
            noted = alike.watched(files)
            line = audit_files(noted, task.options).as_json()
            alike.keep(noted, line)
        except InputError as error:
            blank.reason = str(error)
            line = blank.as_json()
        except (Exception, RecursionError) as error:  # one line's failure, never the sweep's
            blank.reason = f"the audit failed: {type(error).__name__}: {error}"
            blank.obligations = [Obligation(rule="S1", status="undetermined", reason=blank.reason)]
            line = blank.as_json()
        yield {"event": "line", "line": line}
