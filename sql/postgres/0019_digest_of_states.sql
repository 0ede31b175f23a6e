-- Whether a state is what was stored; one without is not used.
alter table snapshots add column digest text collate "C";
