"""Commands of `steplog` that are many enough to stand in a file of their own, and what all commands share."""
