"""The definition of a store: a class that passes this suite is one.

To enrol, a test module has a fixture `harness` (a LogHarness) and an empty subclass of StoreCompliance.
"""

from __future__ import annotations

from compliance.appending import AppendingCompliance
from compliance.appending_locked import AppendingLockedCompliance
from compliance.claiming import ClaimingCompliance
from compliance.creating import CreatingCompliance
from compliance.data_keys import DataKeysCompliance
from compliance.feeding import FeedingCompliance
from compliance.inspecting import InspectingCompliance
from compliance.listing import ListingCompliance
from compliance.projecting import ProjectingCompliance
from compliance.reading import ReadingCompliance
from compliance.states import StatesCompliance
from compliance.transacting import TransactingCompliance
from compliance.workers import WorkersCompliance
from compliance.working import WorkingCompliance


class StoreCompliance(
    CreatingCompliance,
    AppendingCompliance,
    AppendingLockedCompliance,
    TransactingCompliance,
    ClaimingCompliance,
    ReadingCompliance,
    ListingCompliance,
    FeedingCompliance,
    ProjectingCompliance,
    StatesCompliance,
    DataKeysCompliance,
    InspectingCompliance,
    WorkersCompliance,
    WorkingCompliance,
):
    """Everything a store does."""
