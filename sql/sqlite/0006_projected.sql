-- What projections keep: documents by key, of a job by its id. A generation is built beside the one that is read, and
-- takes its place whole.

CREATE TABLE projected (
    projection TEXT NOT NULL,
    generation INTEGER NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (projection, generation, key)
) WITHOUT ROWID;

-- A page of the user's own may go on reading this.
CREATE TABLE registration_job_steps (
    job_id TEXT NOT NULL,
    step_number INTEGER NOT NULL,
    status TEXT NOT NULL,
    sub_step_progress TEXT NOT NULL,
    error_message TEXT,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (job_id, step_number)
) WITHOUT ROWID;
