"""The restaurant registration job: four phases, twelve sub-steps, real work."""
