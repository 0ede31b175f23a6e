"""Folds of the log: the state, and what people and the engine read out of it. Pure: no I/O, no clock."""
