"""A log that went backwards under its living owner: what was acknowledged is gone, and a person has to know.

A database restored from an older backup, or a standby that lacked the last commits, now ends before what the owner
knows. Nothing the owner holds in memory is put onto that older log: the job is claimed anew as it is there, and parked.
"""

from __future__ import annotations

from steplog.engine.claiming import claim_job
from steplog.engine.errors import OwnershipLost
from steplog.engine.history import load
from steplog.eventstore.chain import Position, seal
from steplog.eventstore.clock import Clock
from steplog.eventstore.errors import JobOwned, WorkerDead, WrongState
from steplog.eventstore.events import JobParked
from steplog.eventstore.store import Append, Code, Store
from steplog.eventstore.writer import Writer
from steplog.projections.evolve import Evolution
from steplog.projections.head import head_of
from steplog.projections.state import State


def park_regressed(store: Store, writer: Writer, clock: Clock, *, worker_id: str, job_id: str, lost: Position) -> State:
    """The job's state, parked, with the version and hash that were acknowledged and are lost.

    Raises OwnershipLost where somebody else runs the job by now, or where it ended or stopped on the log as it is.
    """
    try:
        there, claim = claim_job(store, clock, worker_id, load(store, job_id), anew=True)
    except (JobOwned, WorkerDead, WrongState) as error:
        raise OwnershipLost(job_id, f"the log went backwards, and {error}") from error
    parked = JobParked(
        reason="log regressed",
        detail=f"version {lost.version} was acknowledged, and the log was found without it",
        lost_version=lost.version,
        lost_hash=lost.hash,
    )
    evolution = Evolution(there.state)
    evolution.foresee(parked, max(clock.now(), there.state["recorded_at"]))
    state = evolution.state
    events = seal(job_id, there.position, [parked], state["recorded_at"], clock)
    answer = writer.append(Append(job_id, there.position, claim, events, head_of(state), release=True)).result()
    if answer.code is not Code.STORED:
        raise OwnershipLost(job_id, f"the log went backwards, and then the job was {answer.code}")
    return state
