-- Limits across the fleet: as many rows a limit as it has slots that were ever taken. A slot of a concurrency limit is
-- held while its job has an owner, whoever that is; one of a rate is used up for a while.
CREATE TABLE slots (
    limit_name TEXT NOT NULL,
    slot INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    taken_at TEXT NOT NULL,
    PRIMARY KEY (limit_name, slot)
) WITHOUT ROWID;
