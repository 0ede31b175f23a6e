"""The limit of bulk: rows like events copied in one commit."""

from __future__ import annotations

from uuid import uuid4

import psycopg
from program import Measured, Stopwatch, Work, main, settings_of_postgres
from step_rows import TABLE, payload


def measure(work: Work) -> Measured:
    watch, job_id = Stopwatch(), str(uuid4())
    with psycopg.connect(work.store) as connection:
        connection.execute(TABLE)
        connection.commit()
        with watch.running():
            with connection.cursor().copy("copy steps from stdin") as copy:
                for number in range(work.events):
                    copy.write_row((job_id, number, payload(number)))
            connection.commit()
        settings = settings_of_postgres(lambda text: connection.execute(text.encode()).fetchall()[0][0])
    return Measured(work.events, watch.seconds, settings)


if __name__ == "__main__":
    main(measure)
