-- The feed goes through events in the order of their transactions.

create index events_by_xid on events (xid);
