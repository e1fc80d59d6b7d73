"""The ledger's list: every statement that has to be judged stands in it once, and nothing else does."""

import json
import re
from collections import Counter

import pytest

from reports.__main__ import main
from reports.claims.arithmetic import ARITHMETIC_CLAIMS
from reports.claims.registry import CLAIMS
from reports.claims.verdict import VERDICTS

LEDGER = [
    "allreduce-count",
    "tp-bytes-layer",
    "tp-bytes-step",
    "pp-bytes-stage",
    "tp-pp-ratio-128",
    "tp-pp-ratio-140",
    "generic-tp-prefill",
    "generic-tp-decode",
    "generic-pp-prefill",
    "generic-pp-decode",
    "pp-weight-transfer",
    "tp-100-steps",
    "pp-microbatch-step",
    "weights-19.5",
    "kv-formula",
    "kv-400MB",
    "activations",
    "memory-equal",
    "batch-10k-fits",
    "tokens-125-vs-1000",
    "tokens-1-vs-125",
    "knee",
    "linear-throughput",
    "microbatch-useless",
    "allreduce-30",
    "allreduce-38",
    "tp-lower-latency",
    "tp-utilisation",
    "pp-utilisation",
    "pp-one-of-p",
    "prefill-comm-20-30",
    "prefill-pp-comm-1",
    "prefill-winner",
    "decode-winner",
]
"""Every statement of the note that has to be judged, and one that is true in place of the first on times."""


def test_every_claim_is_one_slug_and_one_statement():
    ids = [claim.id for claim in CLAIMS]
    assert [slug for slug, count in Counter(ids).items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z0-9]+([-.][a-zA-Z0-9]+)*", slug) for slug in ids)
    assert [row.id for row in ARITHMETIC_CLAIMS] == LEDGER[: len(ARITHMETIC_CLAIMS)]
    assert sorted(ids) == sorted(LEDGER)
    assert all(claim.statement.endswith(".") and claim.source for claim in CLAIMS)
    assert {claim.expected for claim in CLAIMS} <= {*VERDICTS, None}


def test_each_has_a_verdict_in_json(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["claims", "--format", "json"])
    assert not ended.value.code
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == [claim.id for claim in CLAIMS]
    assert {row["verdict"] for row in rows} <= set(VERDICTS)
