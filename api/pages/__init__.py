"""The dashboard: pages rendered on the server, that need no JavaScript to be read or used."""
