"""What shards say of themselves, put together."""

import json

from pipeline.store.parts.evidence import merge_certificates, merge_provenance
from pipeline.store.parts.own_shard import CIRCUMSTANCES


def provenance(host, started, failures):
    same = dict.fromkeys(CIRCUMSTANCES, "same")
    times = {"started": started, "finished": started + "+", "failures_json": json.dumps(failures)}
    return {**same, **times, "host": host}


def test_every_combination_of_circumstances_is_named():
    merged = merge_provenance(
        [
            provenance("b", "2", {}),
            provenance("a", "1", {"5": "bad"}),
            provenance("b", "3", {"9": "worse"}),
        ]
    )
    seen = json.loads(merged["circumstances_json"])
    assert [(entry["host"], entry["shards"]) for entry in seen] == [("b", 2), ("a", 1)]
    assert (merged["started"], merged["finished"]) == ("1", "3+")
    assert json.loads(merged["failures_json"]) == {"5": "bad", "9": "worse"}


def test_the_worst_error_counts_and_every_disagreement_is_kept_once():
    records = [
        {"rows_checked": 1, "rows_error": '{"hessian": 2e-3}', "disagreements": '["odd"]'},
        {"rows_checked": 0, "rows_error": "{}", "disagreements": '["odd"]'},
        {
            "rows_checked": 1,
            "rows_error": '{"hessian": 1e-16}',
            "disagreements": '["odd", "wrong"]',
        },
    ]
    merged = merge_certificates(records)
    assert merged["rows_checked"] == 2
    assert json.loads(merged["rows_error"]) == {"hessian": 2e-3}
    assert json.loads(merged["disagreements"]) == ["odd", "wrong"]
