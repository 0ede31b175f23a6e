"""Workflow definitions, the pure decider, and the runner that carries out what it decides."""
