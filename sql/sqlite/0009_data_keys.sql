-- Each job's own key to its sealed values, wrapped by a key that is not here; NULL once it was destroyed. Not part of
-- the log: the chain covers what is sealed, and stays whole without the key.

CREATE TABLE data_keys (
    job_id TEXT NOT NULL PRIMARY KEY,
    wrapped TEXT,
    erased_at TEXT,
    CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
) WITHOUT ROWID;
