"""The log: event types, their bytes, the hash chain, and the stores that keep them.

Knows nothing of phases and their rules beyond the event catalogue.
"""
