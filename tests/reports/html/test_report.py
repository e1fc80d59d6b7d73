"""What is said of several files together, and which points are kept out of it."""

import pytest

from reports import output, results
from reports.claims import registry, tokens
from reports.claims.evidence import collect_evidence
from reports.html import page as html_page
from reports.html import report
from reports.output import Facts
from specs.errors import UserError
from tests.reports import planted, planted_sweeps
from tests.reports.planted_sweeps import PUBLISHED, experts, findings, ratios_of, roofline

ODD = {"doubts": ("1.34 times the time of 1025 tokens",)}


def judged(measurements):
    return findings(tokens.judge_token_ratio, measurements, PUBLISHED, a=125, b=1000)


def sweep(path, knee=200, **changes):
    found = planted_sweeps.by_frameworks([roofline(knee), roofline(knee * 1.05)], **changes)
    return planted.write(path, found, PUBLISHED)


def test_an_odd_point_does_not_set_the_range_and_is_named():
    odd = planted_sweeps.published({125: 1e-4, 1000: 9e-4}.__getitem__, "sglang", (125, 1000), facts=ODD)
    whole, rows = judged([*ratios_of(4.0, 4.2), *odd])
    assert (whole.low, whole.high) == pytest.approx((4.0, 4.2))
    assert rows["o tp8"].condition == "without sglang: slower than with more tokens"
    assert not {one.case.name for one in odd} & set(whole.cases)


def test_of_odd_points_alone_nothing_is_said():
    whole, _ = judged(ratios_of(4.0, 4.2, facts=ODD))
    assert (whole.verdict, whole.condition) == ("UNDERPOWERED", "the times are odd: slower than with more tokens")


def test_the_error_of_interpolation_stands_beside_the_interval():
    between = {"provenance": "interpolated", "interpolated_over": "tokens 113–128", "interpolation_error": 0.07}
    whole, rows = judged(ratios_of(4.0, 4.2, facts=between))
    assert (whole.interpolation_error, rows["o tp8"].interpolation_error) == (0.07, 0.07)
    assert judged(ratios_of(4.0, 4.2))[0].interpolation_error is None


def test_an_overall_range_of_interpolated_shapes_alone_says_so():
    between = {"provenance": "interpolated", "interpolated_over": "n 51200–65536", "interpolation_error": 0.1}
    assert judged(ratios_of(4.0, 4.2, facts=between))[0].condition == "over 1 linear of interpolated shape"


def test_a_constant_for_plain_launches_is_not_used_where_times_include_quantising():
    found = planted_sweeps.by_frameworks([roofline(200)] * 2, dtype="fp8")
    whole, _ = findings(tokens.judge_knee, found, PUBLISHED)
    assert whole.verdict == "NOT_MEASURED"
    assert "include quantising" in whole.condition


def test_two_files_of_one_gpu_are_told_apart(tmp_path):
    paths = [sweep(tmp_path / "before.json", n=8192, k=8192), sweep(tmp_path / "after.json", knee=400, n=8192, k=8192)]
    told = report.build_report(results.load_all(paths))
    names = ["h200_sxm (before)", "h200_sxm (after)"]
    assert [one.name for one in told.evidences] == names
    assert {one.finding.gpu for one in told.judged if one.finding.gpu} == {"h200_sxm"}
    assert {one.name for one in told.generations.entries} == set(names)
    text = output.render_terminal(told.blocks(), width=200)
    assert all(name in text for name in names)
    page = html_page.render_page(told)
    plots = ["time-h200-sxm--before--bf16", "time-h200-sxm--after--bf16"]
    assert [page.count(f'id="{plot}"') for plot in plots] == [1, 1]


def test_a_file_given_twice_is_refused(tmp_path):
    path = sweep(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a.json: given twice; its figures would count as two witnesses"):
        results.load_all([path, tmp_path / ".." / tmp_path.name / "a.json"])


def answered(measurements):
    file = planted_sweeps.file(measurements, PUBLISHED)
    return report.build_report([file]).tokens


def test_experts_are_said_to_come_close_only_if_they_do():
    near, far = (answered([*ratios_of(4.0, 4.2), *experts("balanced", *pair)]) for pair in ((1.3, 1.4), (3.9, 4.1)))
    assert near.details[-1] == (
        "Fine-grained experts come close: 1000 tokens take 1.4 times as long as 125 in the middle; "
        "beyond 1.25 throughout on h200_sxm."
    )
    assert far.details[-1].startswith("Fine-grained experts do not come close: 1000 tokens take 4.0 times")


def test_experts_alone_are_spoken_of(tmp_path):
    found = answered(experts("balanced", 1.1, 1.2))
    assert found.headline.startswith("Not measured")
    assert found.details[0].endswith("in the middle; within 1.25 on h200_sxm.")


def test_what_would_steer_a_terminal_is_shown_instead():
    text = output.render_terminal([Facts(title="a\x1b[31mb", rows=(("n", "c\x07\x1b]0;d"),))], width=80)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "a�[31mb" in text


def test_a_published_file_names_its_frameworks_and_when_it_was_imported(tmp_path):
    found = planted_sweeps.by_frameworks([roofline(200)] * 2, facts={"version": "1.2"})
    text = output.render_terminal(report.build_report([planted_sweeps.file(found, PUBLISHED)]).provenance(), width=200)
    assert "frameworks  trtllm 1.2, vllm 1.2" in text
    assert "imported " in text
    assert "date " not in text


def test_a_page_that_stays_too_large_keeps_the_first_plots(tmp_path, monkeypatch):
    told = report.build_report(results.load_all([sweep(tmp_path / f"{name}.json") for name in "abc"]))
    assert html_page.render_page(told).count("data-for=") == 3 + 2
    monkeypatch.setattr(html_page, "MAX_BYTES", 10)
    monkeypatch.setattr(html_page, "MAX_TIME_PLOTS", 2)
    assert html_page.render_page(told).count("data-for=") == 2 + 2


def test_every_evidence_has_a_file_behind_its_findings():
    found = collect_evidence([planted_sweeps.file(ratios_of(4.0, 4.2), PUBLISHED)])
    rows = [one.finding for one in registry.judge_files([planted_sweeps.file(ratios_of(4.0, 4.2), PUBLISHED)])]
    assert {row.file for row in rows if row.gpu} == {str(found[0].path)}
