-- What a worker may claim, found by what is due alone.
CREATE INDEX jobs_due ON jobs (workflow, priority DESC, wake_at) WHERE worker_id IS NULL AND wake_at IS NOT NULL;

CREATE INDEX jobs_by_batch ON jobs (batch_id, status) WHERE batch_id IS NOT NULL;
