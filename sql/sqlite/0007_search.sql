-- What lists filter on, each with the id behind it, so that a page begins where the one before ended. None covers a
-- column that changes with every append.

CREATE INDEX jobs_by_workflow ON jobs (workflow, job_id);
CREATE INDEX jobs_by_status ON jobs (status, job_id);
CREATE INDEX jobs_by_failed_sub_step ON jobs (failed_sub_step, job_id) WHERE failed_sub_step IS NOT NULL;
CREATE INDEX jobs_by_key ON jobs (key, job_id) WHERE key IS NOT NULL;
CREATE INDEX jobs_by_suffix ON jobs (substr(job_id, -4));
