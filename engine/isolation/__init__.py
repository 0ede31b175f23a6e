"""Handlers in processes of their own: forked clean for each attempt, spoken with in JSON, gone at its end."""
