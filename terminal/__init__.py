"""How the CLI draws: trees, tables, relative times, and text that cannot harm a terminal."""
