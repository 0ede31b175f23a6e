"""Reading a job, as the engine does."""

from steplog.projections.loading import Loaded as Loaded
from steplog.projections.loading import load as load
from steplog.projections.loading import position_of as position_of
from steplog.projections.loading import to_store as to_store
