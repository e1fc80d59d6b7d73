"""A deployment at a batch: what its step takes, over all variants that were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.plan.account import Account, account
from reports.plan.missing import MissingError
from reports.plan.parts import Parts
from reports.plan.step import Step, compose
from specs.parallel import Deployment, Split


@dataclass(frozen=True)
class Point:
    """One row of a plan.

    Attributes:
        batch: sequences in all.
        deployment: how they are run.
        why: why it does not fit into memory; empty where it does.
        steps: by implementation the step, elementwise kernels counted; none where it does not fit.
        low, high: over all implementations, with and without elementwise kernels, and the doubts of their parts.
        implementation: whose step stands for all: the middle one.
        account: of that.
    """

    batch: int
    deployment: Deployment
    why: str = ""
    steps: Mapping[str, Step] | None = None
    low: float = 0.0
    high: float = 0.0
    implementation: str = ""
    account: Account | None = None

    @property
    def fits(self) -> bool:
        """Whether memory holds it."""
        return not self.why

    @property
    def seconds(self) -> float:
        """Of the middle step."""
        return self.steps[self.implementation].seconds if self.steps else float("inf")

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch, a token for each sequence and step."""
        return self.batch / self.seconds


def measured(parts: Sequence[Parts], deployment: Deployment, split: Split, batch: int) -> Point:
    """The point that fits.

    Raises:
        MissingError: no variant has all its parts.
    """
    found, lacking = [], []
    for one in parts:
        try:
            found.append((one, compose(one, deployment, split, batch)))
        except MissingError as error:
            lacking.append(error)
    if not found:
        raise lacking[0]
    counted = sorted(((step.seconds, one) for one, step in found if one.variant.elementwise), key=lambda pair: pair[0])
    middle = counted[(len(counted) - 1) // 2][1]
    steps = {one.variant.implementation: step for one, step in found if one.variant.elementwise}
    name = middle.variant.implementation
    return Point(
        batch=batch,
        deployment=deployment,
        steps=steps,
        low=min(step.low for _, step in found),
        high=max(step.high for _, step in found),
        implementation=name,
        account=account(middle, deployment, split, steps[name]),
    )
