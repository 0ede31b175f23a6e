"""Workflows that ship with steplog."""
