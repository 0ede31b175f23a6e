-- Jobs whose events were exported and removed. Their heads and keys stay, so that no id and no key comes back; an event
-- may go only where its job is one of them.

CREATE TABLE pruned (
    job_id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    hash TEXT NOT NULL,
    pruned_at TEXT NOT NULL
) WITHOUT ROWID;

DROP TRIGGER events_refuse_delete;

CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM pruned WHERE pruned.job_id = OLD.job_id AND pruned.version >= OLD.version)
BEGIN
    SELECT RAISE(ABORT, 'events are append-only: DELETE is refused');
END;
