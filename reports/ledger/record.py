"""A ledger for a machine: SI units, means, None where there is nothing to say."""

from typing import Any

from reports.ledger.account import Amount, Item, Ledger


def record(one: Ledger) -> dict[str, Any]:
    """One layer; the shares of its items add up to 1."""
    case, ratio = one.layer.case, _interval(one.ratio)
    return {
        "file": str(one.layer.file.path),
        "model": case.model,
        "tp": case.tp,
        "pp": case.pp,
        "tokens": case.tokens,
        "batch": case.batch,
        "context": case.context,
        "dtype": case.dtype,
        "cache": case.cache,
        "implementation": case.implementation,
        "launch": case.launch,
        "passes": one.passes,
        "seconds": one.seconds.mean,
        "floor_share": one.floor_share,
        "items": [_item(item) for item in one.items],
        "parts": [
            {
                "layer": name,
                "kernel": one.layer.parts[name].case.kernel,
                "seconds": amount.mean,
                "per_layer": one.layer.calls(name),
            }
            for name, amount in one.parts.items()
        ],
        "sum_of_parts_seconds": one.together.mean if one.together else None,
        "ratio": one.ratio.mean if one.ratio else None,
        "ratio_low": ratio[0],
        "ratio_high": ratio[1],
        "verdict": one.verdict,
        "missing": one.missing,
    }


def _item(item: Item) -> dict[str, Any]:
    (low, high), (share_low, share_high) = _interval(item.seconds), _interval(item.share)
    return {
        "name": item.name,
        "seconds": item.seconds.mean,
        "low": low,
        "high": high,
        "share": item.share.mean,
        "share_low": share_low,
        "share_high": share_high,
    }


def _interval(amount: Amount | None) -> tuple[float, float] | tuple[None, None]:
    return (amount and amount.interval) or (None, None)
