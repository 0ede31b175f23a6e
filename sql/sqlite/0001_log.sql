-- The log and what is derived from it. Text throughout, so that a stranger with the sqlite3 shell can read all of it:
-- instants are RFC 3339 UTC, hashes are hex, data are JSON.

CREATE TABLE schema_migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at TEXT NOT NULL
);

-- One row a job: where its log ends, what lists show, and who owns it.
CREATE TABLE jobs (
    job_id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    hash TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    claim_id TEXT,
    worker_id TEXT,
    workflow TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    mode TEXT NOT NULL,
    phase TEXT,
    last_error TEXT,
    failed_sub_step TEXT,
    wake_at TEXT,
    ended_at TEXT,
    done INTEGER NOT NULL,
    total INTEGER NOT NULL,
    key TEXT,
    tags TEXT NOT NULL,
    priority INTEGER NOT NULL,
    batch_id TEXT
) WITHOUT ROWID;

CREATE INDEX jobs_by_worker ON jobs (worker_id) WHERE worker_id IS NOT NULL;

-- One row an event. Commit order is row order, so the position is the feed across jobs.
CREATE TABLE events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    event_id TEXT NOT NULL,
    type TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    recorded_at TEXT NOT NULL,
    data TEXT NOT NULL,
    hash TEXT NOT NULL,
    UNIQUE (job_id, version)
);

CREATE TABLE snapshots (
    job_id TEXT NOT NULL,
    reducer_version INTEGER NOT NULL,
    version INTEGER NOT NULL,
    hash TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (job_id, reducer_version, version)
) WITHOUT ROWID;

CREATE TABLE job_keys (
    workflow TEXT NOT NULL,
    key TEXT NOT NULL,
    job_id TEXT NOT NULL,
    input_hash TEXT NOT NULL,
    PRIMARY KEY (workflow, key)
) WITHOUT ROWID;

CREATE INDEX job_keys_by_key ON job_keys (key);

-- Requests of operators and signals, so that one sent twice is stored once.
CREATE TABLE requests (
    job_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (job_id, request_id)
) WITHOUT ROWID;

-- lock_byte is the worker's byte in the file beside the database; it is never given out twice. Byte 0 has another use.
CREATE TABLE workers (
    lock_byte INTEGER PRIMARY KEY AUTOINCREMENT,
    worker_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('alive', 'dead', 'stopped')),
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    boot_id TEXT,
    pid_namespace TEXT,
    process_started TEXT,
    started_at TEXT NOT NULL,
    ended_at TEXT
);

CREATE TABLE workflows (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    plan TEXT NOT NULL,
    schemas TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;

CREATE TABLE projections (
    name TEXT NOT NULL PRIMARY KEY,
    checkpoint TEXT NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;

-- Jobs that a projection cannot follow beyond a version; others it follows on.
CREATE TABLE quarantine (
    projection TEXT NOT NULL,
    job_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    error TEXT NOT NULL,
    since TEXT NOT NULL,
    PRIMARY KEY (projection, job_id)
) WITHOUT ROWID;
