"""A module that starts a thread as it is imported, which nothing may be forked beside."""

from __future__ import annotations

import os
import threading

from steplog import Workflow

IMPORTED_IN = os.getpid()
threading.Thread(target=threading.Event().wait, daemon=True).start()

threaded = Workflow("threaded")


@threaded.sub_step(isolate="process")
def is_imported_here() -> bool:
    return os.getpid() == IMPORTED_IN
