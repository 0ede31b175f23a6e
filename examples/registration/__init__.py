"""The restaurant registration job: four phases, twelve sub-steps, real work."""

from steplog.examples.registration.model import Progress, Registration
from steplog.examples.registration.workflow import registration

__all__ = ["Progress", "Registration", "registration"]
