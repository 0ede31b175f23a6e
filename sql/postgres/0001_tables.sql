-- The log and what is kept beside it. Names carry no schema: the runner and the functions set the search path.

create table schema_migrations (
    number     integer     not null primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default clock_timestamp()
);

-- A job's head: where its log ends, who owns it, and what lists filter on. No index covers a column that changes with
-- every append, and half of each page is left free, so that every update stays on its page (HOT).
create table jobs (
    job_id          uuid        not null primary key,
    version         bigint      not null check (version >= 0),
    hash            text        not null collate "C",
    recorded_at     timestamptz not null,
    epoch           bigint      not null default 0,
    claim_id        text        collate "C",
    worker_id       text        collate "C",
    workflow        text        not null collate "C",
    status          text        not null collate "C",
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    mode            text        not null collate "C",
    phase           text        collate "C",
    last_error      text,
    failed_sub_step text        collate "C",
    wake_at         timestamptz,
    ended_at        timestamptz,
    done            integer     not null,
    total           integer     not null,
    key             text        collate "C",
    tags            jsonb       not null,
    priority        integer     not null,
    batch_id        text        collate "C"
) with (fillfactor = 50);

create index jobs_by_workflow on jobs (workflow, job_id);
create index jobs_by_status on jobs (status, job_id);
create index jobs_by_failed_sub_step on jobs (failed_sub_step, job_id) where failed_sub_step is not null;
create index jobs_by_tags on jobs using gin (tags jsonb_path_ops);
create index jobs_by_key on jobs (key, job_id) where key is not null;
create index jobs_by_worker on jobs (worker_id) where worker_id is not null;
create index jobs_due on jobs (priority desc, wake_at) where worker_id is null and wake_at is not null;
create index jobs_by_suffix on jobs (reverse(job_id::text) collate "C");

-- The log. `data` is json, not jsonb: the hash covers its bytes.
create table events (
    job_id         uuid        not null,
    version        bigint      not null check (version > 0),
    event_id       uuid        not null,
    type           text        not null collate "C",
    schema_version integer     not null,
    recorded_at    timestamptz not null,
    data           json        not null,
    hash           text        not null collate "C",
    xid            xid8        not null default pg_current_xact_id(),
    primary key (job_id, version)
);

create table snapshots (
    job_id          uuid        not null,
    version         bigint      not null,
    reducer_version integer     not null,
    hash            text        not null collate "C",
    recorded_at     timestamptz not null,
    state           json        not null,
    primary key (job_id, reducer_version, version)
);

create table job_keys (
    workflow   text not null collate "C",
    key        text not null collate "C",
    job_id     uuid not null,
    input_hash text not null collate "C",
    primary key (workflow, key)
);

create table requests (
    job_id     uuid   not null,
    request_id text   not null collate "C",
    version    bigint not null,
    primary key (job_id, request_id)
);

create table workers (
    worker_id       text        not null collate "C" primary key,
    host            text        not null,
    pid             bigint      not null,
    boot_id         text,
    pid_namespace   text,
    process_started text,
    state           text        not null collate "C" check (state in ('alive', 'dead', 'stopped')),
    started_at      timestamptz not null default clock_timestamp(),
    expires_at      timestamptz not null,
    ended_at        timestamptz
) with (fillfactor = 50);

create table workflows (
    name    text        not null collate "C",
    version text        not null collate "C",
    plan    json        not null,
    schemas json        not null,
    seen_at timestamptz not null default clock_timestamp(),
    primary key (name, version)
);

-- How far each projection has come in the feed. Transaction ids mean nothing in another cluster or on another
-- timeline, so a checkpoint names both.
create table projections (
    name       text        not null collate "C" primary key,
    checkpoint json        not null,
    updated_at timestamptz not null default clock_timestamp()
);

-- Jobs that a projection cannot follow beyond a version; others it follows on.
create table quarantine (
    projection text        not null collate "C",
    job_id     uuid        not null,
    version    bigint      not null,
    error      text        not null,
    since      timestamptz not null default clock_timestamp(),
    primary key (projection, job_id)
);
