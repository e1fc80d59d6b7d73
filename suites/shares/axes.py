"""The axes of shares: what ranks compute, and how many at once, in the steps that the experiment would run."""

from collections.abc import Iterator

import pytest

from kernels.timing.device import Device, current_device
from specs.layer import SHARE_PARTS
from suites.how import StepHow
from suites.options import Options, read_options
from suites.rank_axes import ranks_of
from suites.shares.part import Share
from suites.steps.axes import steps
from suites.world.ranks import Ranks


def add_shares(metafunc: pytest.Metafunc) -> None:
    """Parametrise `share` and `how`: rivals next to each other, then the parts of one share.

    Args:
        metafunc: pytest's view of the bench function.
    """
    options, device = read_options(metafunc.config), current_device()
    cases = list(shares(options, device, ranks_of(metafunc, device.kind)))
    ids = [f"{share}-{how.dtype}-{how.implementation}" for share, how in cases]
    metafunc.parametrize(("share", "how"), cases, ids=ids)


def shares(options: Options, device: Device, ranks: Ranks) -> list[tuple[Share, StepHow]]:
    """Each once, of the deployments that these ranks can run: what cannot, the experiment tells."""
    return list(dict.fromkeys(_all(options, device, ranks)))


def _all(options: Options, device: Device, ranks: Ranks) -> Iterator[tuple[Share, StepHow]]:
    """Rivals next to each other, though several deployments may have a share in common."""
    found: dict[Share, list[StepHow]] = {}
    for deployment, part, how in steps(options, device, ranks.count, decode=True):
        if deployment.why_not(ranks.count, part.batch):
            continue
        for sequences in deployment.micro_batch_sizes(part.batch):
            for name in SHARE_PARTS:
                share = Share(
                    part.model, part.layers, deployment.tp, deployment.busy_ranks, sequences, part.context, name
                )
                found.setdefault(share, []).append(how)
    for share, hows in found.items():
        for how in hows:
            yield share, how
