"""What a JSON patch does, for tests of ours: as RFC 6902 and 6901 say, for the operations that we write."""

from __future__ import annotations

import copy
from typing import Any


def applied(document: Any, operations: list[dict[str, Any]]) -> Any:
    """The document after the patch; a patch that does not fit it fails."""
    root = {"": copy.deepcopy(document)}
    for operation in operations:
        assert operation.keys() == {"op", "path"} | ({"value"} if operation["op"] != "remove" else set())
        *way, last = [""] + [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        target: Any = root
        for part in way:
            target = target[int(part)] if isinstance(target, list) else target[part]
        place: Any = int(last) if isinstance(target, list) else last
        if operation["op"] == "remove":
            del target[place]
            continue
        value = copy.deepcopy(operation["value"])
        if isinstance(target, list) and operation["op"] == "add":
            assert place <= len(target)
            target.insert(place, value)
        else:
            assert operation["op"] == "add" or isinstance(target, list) or place in target
            target[place] = value
    return root[""]
