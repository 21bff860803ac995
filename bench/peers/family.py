"""All processes that a server has started, however far they have gone from it.

A process whose parent has died becomes a child of this one, which asks the kernel for that: so a
worker that made a session of its own, or whose server has crashed, is found all the same.
"""

from __future__ import annotations

import ctypes
import os

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 1.0
_MOST_SWEEPS = 10


class Family:
    """What this process has under it from now on, that it had not before.

    Lifecycle: construction, before the server starts; end, after it was told to.
    Threading: nothing else may start processes that are to live on meanwhile.
    """

    def __init__(self) -> None:
        """Raises OSError where the kernel will not have it."""
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "orphans cannot be adopted")
        self._others = {each.pid for each in psutil.Process().children(recursive=True)}

    def members(self) -> list[psutil.Process]:
        """Those that run, or have died and were not waited for."""
        all_of_ours = psutil.Process().children(recursive=True)
        return [each for each in all_of_ours if each.pid not in self._others]

    def end(self) -> None:
        """Kills all, and what they started meanwhile; a second is theirs to end by themselves.

        Raises:
            OSError: some cannot be killed.
        """
        psutil.wait_procs(self.members(), _PATIENCE_S)
        for _ in range(_MOST_SWEEPS):
            alive = self.members()
            if not alive:
                return
            for each in alive:
                try:
                    each.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(alive, _PATIENCE_S)
        left = ", ".join(str(each.pid) for each in self.members())
        raise OSError(f"processes {left} cannot be killed (from {os.getpid()})")
