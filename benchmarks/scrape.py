"""Reads this service's metrics, as Prometheus would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.fleet import RunningService

REAL: Final = "electra_real_tokens_total"
PADDED: Final = "electra_padded_tokens_total"
COMPILATIONS: Final = "electra_compilations_after_warm_up"
BATCHES: Final = "electra_batch_sequences_count"
SEQUENCES: Final = "electra_batch_sequences_sum"


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of a service since its start, over all its models.

    Attributes:
        real_tokens: Unmasked positions computed.
        padded_tokens: Positions computed.
        batches: Batches.
        sequences: Sequences in them.
        compilations: Graphs compiled since its warm-up.
    """

    real_tokens: float
    padded_tokens: float
    batches: float
    sequences: float
    compilations: float

    def since(self, before: Totals) -> Counted | None:
        """Returns the counts since `before`; None if nothing ran.

        Example:
            >>> Totals(110, 130, 3, 6, 0).since(Totals(10, 10, 1, 0, 0))
            Counted(padded_per_real=1.2, batch_sequences=3.0, compilations=0)
        """
        if self.batches == before.batches:
            return None
        return Counted(
            padded_per_real=(self.padded_tokens - before.padded_tokens) / (self.real_tokens - before.real_tokens),
            batch_sequences=(self.sequences - before.sequences) / (self.batches - before.batches),
            compilations=self.compilations,
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of a service over some time.

    Attributes:
        padded_per_real: Positions computed for each real token.
        batch_sequences: Mean sequences in a batch.
        compilations: Graphs compiled since its warm-up, up to the end of that time.
    """

    padded_per_real: float
    batch_sequences: float
    compilations: float


def scrape(service: RunningService) -> Totals:
    """Returns the counts of `service` so far."""
    return parse(service.get("/metrics").decode())


def parse(exposition: str) -> Totals:
    """Parses Prometheus' text.

    Example:
        >>> parse('electra_real_tokens_total{model="m"} 5.0').real_tokens
        5.0
    """
    sums = dict.fromkeys((REAL, PADDED, BATCHES, SEQUENCES, COMPILATIONS), 0.0)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name in sums:
                sums[sample.name] += sample.value
    return Totals(*sums.values())
