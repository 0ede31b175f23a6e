"""The status API and the dashboard: jobs over HTTP, for machines and for people. Needs the extra `server`."""
