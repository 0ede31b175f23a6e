"""steplog: an append-only log of every step a job takes, and the engine that survives a crash because of it."""
