"""Messages over a link that somebody imagines: faster or slower, further away, or shared with others."""

from reports.plan import assumed
from reports.plan.assumed import Assumed
from reports.plan.cost import FIGURES, Cost
from reports.plan.curve import Curve
from reports.plan.fabric import Fabric
from specs.traffic import TRAFFIC

AS_IT_IS = Fabric()


def over_link(message_bytes: int, fabric: Fabric, usual: Assumed, usual_rate: float) -> Cost:
    """A hop of which nothing was measured: what is not imagined is assumed."""
    moved = message_bytes / rate(fabric, usual_rate)
    seconds, low, high = (wait + moved for wait in latency(fabric, usual))
    return Cost(seconds, low, high, 0.0, "assumed" if fabric == AS_IT_IS else "modelled")


def rate(fabric: Fabric, usual: float) -> float:
    """Bytes a second of a link, in one direction, that are left by whoever else uses it."""
    return (fabric.bytes_per_second or usual) * fabric.share


def latency(fabric: Fabric, usual: Assumed) -> tuple[float, float, float]:
    """Seconds of a message, the least and the most."""
    given = fabric.latency_seconds
    return (usual.value, usual.low, usual.high) if given is None else (given, given, given)


def reshaped(curve: Curve, message_bytes: int, fabric: Fabric, usual_rate: float) -> Cost:
    """What was measured, on another link.

    The smallest message has the latency: it scales as the imagined latency does against what is assumed of a hop. What
    a message takes beyond that was spent moving bytes: it scales with the rates, so an algorithm stays as good as it
    is.

    Args:
        curve: measured times over bytes.
        message_bytes: of the message.
        fabric: what is imagined.
        usual_rate: of the link as it is, in bytes a second and one direction.
    """
    start, one = curve.at(curve.sizes[0]), curve.at(message_bytes)
    given = fabric.latency_seconds
    further = 1.0 if given is None else given / assumed.HOP_SECONDS.value
    slower = usual_rate / rate(fabric, usual_rate)
    seconds, low, high = (further * pick(start) + slower * max(0.0, pick(one) - pick(start)) for pick in FIGURES)
    return Cost(seconds, low, high, one.half * max(further, slower), "modelled", one.cases)


def measured_rate(curve: Curve, op: str, ranks: int) -> float:
    """What the largest message reaches over a link, in bytes a second and one direction."""
    most = curve.sizes[-1]
    return TRAFFIC[op].sent(ranks) * most / curve.at(most).seconds
