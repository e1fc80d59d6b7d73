"""What an import has gathered: points, and what was left out and why."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from specs.measurement import Measurement


@dataclass
class Imported:
    """Points of one or more families.

    Attributes:
        measurements: the points.
        not_run: by case name why a whole series is missing.
        refused: by case name why a single point cannot be true.
        notes: on tables that were passed over.
        device: the GPU's name as the tables give it.
    """

    measurements: list[Measurement] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    device: str = ""

    def extend(self, others: Iterable["Imported"]) -> None:
        """Take over what others gathered; the first device named stays."""
        for other in others:
            self.measurements += other.measurements
            self.not_run |= other.not_run
            self.refused |= other.refused
            self.notes += other.notes
            self.device = self.device or other.device
