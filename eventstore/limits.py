"""The limits on what the log takes, in one place."""

from __future__ import annotations

DEPTH_MAX = 100
NAME_BYTES_MAX = 255
PAYLOAD_BYTES_MAX = 1 << 20
ENVELOPE_BYTES_MAX = 4096
"""What an event says beside the values a handler gave it: names, numbers, times."""
ERROR_MESSAGE_CHARS_MAX = 10_000
TRACEBACK_CHARS_MAX = 20_000
LOG_LINES_MAX = 1_000
"""How many lines of one attempt are kept."""
LOG_LINE_CHARS_MAX = 2_000
LOG_CHARS_MAX = 65_536
SHOWN_CHARS_MAX = 60
"""How much of a refused key or name an error repeats."""
INTEGER_MIN = -(1 << 63)
INTEGER_MAX = (1 << 64) - 1
