"""Parts of the decider, by subject. Pure: the story that they belong to is `engine/decider.py`."""
