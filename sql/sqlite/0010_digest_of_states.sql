-- Whether a state is what was stored; one without is not used.
ALTER TABLE snapshots ADD COLUMN digest TEXT;
