"""What the CLI shows: pure functions from states, heads and events to lines of text, and the streams they go to."""
