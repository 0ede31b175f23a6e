-- Schedules that workers have declared, and how far each has fired.
CREATE TABLE schedules (
    workflow TEXT NOT NULL,
    name TEXT NOT NULL,
    cron TEXT NOT NULL,
    timezone TEXT NOT NULL,
    missed TEXT NOT NULL CHECK (missed IN ('skip', 'latest', 'all')),
    seen_at TEXT NOT NULL,
    last_at TEXT,
    PRIMARY KEY (workflow, name)
) WITHOUT ROWID;
