import json
import os
from importlib import metadata, util
from importlib.machinery import ModuleSpec

import pytest

from reports import results
from reports.__main__ import main
from reports.importers.aiconfigurator import package
from tests.reports.importers.aiconfigurator import planted_tables as planted


@pytest.fixture
def data(tmp_path):
    """Tables of a system with all families, and of one whose GPU is unknown."""
    folder = tmp_path / "package" / "systems" / "data"
    planted.whole(folder / "h200_sxm")
    planted.gemm(folder / "x9000", planted.shape(8192, 8192, planted.affine))
    return folder


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def planted_package(data, kept, monkeypatch):
    planted.install(monkeypatch, data, kept)


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; gives the file, the exit code and what was said."""

    def runs(*options, system="h200_sxm", to=None):
        to = to or tmp_path / "out.json"
        given = ["import", "aiconfigurator", "--system", system, "-o", str(to), *options]
        with pytest.raises(SystemExit) as caught:
            main(given)
        said = capsys.readouterr()
        return to, caught.value.code or 0, said.out, said.err

    return runs


def test_the_file_is_one_that_reports_read(run):
    to, code, out, err = run()
    assert (code, err) == (0, "")
    assert out.startswith("h200_sxm: ")
    assert out.endswith(f"\n{to}: written\n")
    file = results.load(to)
    assert {one.case.op for one in file.measurements} == {"linear", "moe", "attention", "all_reduce"}
    assert (file.machine["gpu"], file.machine["system"], file.machine["arch"]) == ("NVIDIA H200", "h200_sxm", "sm_90")
    assert file.machine["source"].startswith("aiconfigurator-core 9.9.9 ")
    assert {one.provenance for one in file.measurements} == {"published", "interpolated"}
    assert file.options["dtypes"] == ["bf16"]
    down = "aiconfigurator::linear[llama-3-70b-tp1-down-bf16-vllm]"
    assert file.not_run[down] == "n=8192, k=28672 lies outside the tabulated shapes"


def test_the_summary_counts_what_is_in_the_file(run):
    to, _, out, _ = run()
    points = results.load(to).measurements
    published = sum(one.provenance == "published" for one in points)
    hot = sum(bool(one.maybe_hot) for one in points)
    assert f"h200_sxm: {len(points)} points of NVIDIA H200 from aiconfigurator-core 9.9.9: " in out
    assert f"{published} published, {len(points) - published} interpolated; {hot} maybe hot, " in out
    assert hot > 0


def test_a_refused_point_is_in_the_file_with_its_reason(run, data):
    fast = [{"m": 1, "n": 10240, "k": 8192, "latency": 0.01}]  # 168 MB of weights take 35 us
    planted.gemm(data / "h200_sxm", fast, framework="SGLang")
    to, _, out, _ = run()
    assert "refused 1 that no memory could serve" in out
    refused = "aiconfigurator::linear[llama-3-70b-tp1-qkv-1-bf16-sglang]"
    assert results.load(to).not_run[refused] == "reads 168 MB of weights at 3.50 times the memory's bandwidth"


def test_the_second_import_comes_from_the_cache_byte_for_byte(run, tmp_path):
    first, _, made, _ = run()
    second, code, out, _ = run(to=tmp_path / "again.json")
    assert code == 0
    assert out == made.replace(f"{first}: written", f"{second}: written from the cache")
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    "option", [["--tp", "1,2"], ["--model", "llama-3-70b,qwen3-235b-a22b"], ["--dtype", "bf16,fp8"]]
)
def test_another_option_is_made_anew(run, option):
    run()
    to, code, out, _ = run(*option)
    assert (code, "from the cache" in out) == (0, False)
    assert results.load(to).options != {}
    assert "from the cache" in run(*option)[2]


def test_another_version_of_the_package_is_made_anew(run, data, monkeypatch):
    run()
    monkeypatch.setattr(package, "find_package", lambda: package.TablePackage(data, "10.0.0"))
    to, _, out, _ = run()
    assert "from the cache" not in out
    assert json.loads(to.read_text())["version"] == "10.0.0"


def test_changed_tables_are_made_anew(run, data):
    run()
    path = next((data / "h200_sxm").rglob("gemm_perf.parquet"))
    os.utime(path, ns=(0, 0))
    assert "from the cache" not in run()[2]


def test_an_unwritable_cache_is_no_failure(run, kept):
    kept.write_text("a file where the folder should be")
    for _ in range(2):
        to, code, out, err = run()
        assert (code, err, "from the cache" in out) == (0, "", False)
        assert results.load(to).measurements


@pytest.mark.parametrize("left", [b"\xff\xfe", b"", b"a summary alone", b"900\0a summary\0{ cut sho"])
def test_an_unreadable_cache_is_made_anew(run, kept, left):
    run()
    (place,) = kept.iterdir()
    place.write_bytes(left)
    to, code, out, err = run()
    assert (code, err, "from the cache" in out) == (0, "", False)
    assert results.load(to).measurements
    assert "from the cache" in run()[2]


def test_a_cache_with_another_figure_is_made_anew(run, kept):
    made, *_ = run()
    first = made.read_bytes()
    (place,) = kept.iterdir()
    place.write_text(place.read_text().replace('"tokens": 64', '"tokens": 65'))
    to, _, out, _ = run()
    assert "from the cache" not in out
    assert json.loads(to.read_bytes())["benchmarks"] == json.loads(first)["benchmarks"]


def test_a_cache_that_a_folder_is_in_the_way_of(run, kept):
    run()
    (place,) = kept.iterdir()
    place.unlink()
    (place / "inside").mkdir(parents=True)
    _, code, out, err = run()
    assert (code, err, "from the cache" in out) == (0, "", False)
    assert [*kept.iterdir()] == [place]  # nothing half written beside it


@pytest.mark.parametrize("option", [[], ["--model", "llama-3-70b"]])
def test_without_a_table_of_experts_the_rest_is_imported(run, data, option):
    for path in (data / "h200_sxm" / "moe").rglob("*.parquet"):
        path.unlink()
    to, code, _, err = run(*option)
    assert (code, err) == (0, "")
    file = results.load(to)
    assert {one.case.op for one in file.measurements} == {"linear", "attention", "all_reduce"}
    assert any("moe" in name for name in file.not_run) == (not option)


def test_a_model_without_experts_is_not_missing_them(run):
    to, code, _, _ = run("--model", "llama-3-70b")
    assert code == 0
    assert not [name for name in results.load(to).not_run if "moe" in name]


def refused(outcome, tmp_path):
    to, code, out, err = outcome
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not to.is_file()
    return err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "llama-3-70"], "unknown model 'llama-3-70'; did you mean llama-3-70b? known: "),
        (["--dtype", "bf17"], "unknown number format 'bf17'; did you mean bf16? known: bf16, fp16, fp8, fp8-block"),
        (["--tp", "x"], "--tp 'x': not a width of 1 or more; write as in --tp 1,2,4,8"),
        (["--tp", "1,0"], "--tp '0': not a width"),
        (["--tp", "-2"], "--tp '-2': not a width"),
        (["--tp", "2.0"], "--tp '2.0': not a width"),
        (["--model", "llama-3-70b", "--tp", "3"], "llama-3-70b: tp=3 must divide 64 heads"),
        (["--tp", "1,7"], "tp=7 must divide"),
        (["--model", "deepseek-v3", "--tp", "3"], "choose among 1"),
        (["--model", ""], "--model"),
        (["--tp", ","], "--tp"),
        (["--dtype", ""], "--dtype"),
    ],
)
def test_a_wrong_option(run, tmp_path, options, said):
    assert said in refused(run(*options), tmp_path)


def test_an_unknown_system_gets_no_suggestion_of_another_gpu(run, tmp_path):
    said = refused(run(system="h20"), tmp_path)
    assert "unknown system 'h20'; known: h200_sxm\n" in said


@pytest.mark.parametrize("system", ["h200", "NVIDIA H200", "H200 SXM"])
def test_a_system_is_found_by_the_name_of_its_gpu(run, system):
    to, code, _, _ = run(system=system)
    assert code == 0
    assert results.load(to).machine["system"] == "h200_sxm"


def test_a_model_is_taken_by_its_id_and_kept_by_its_slug(run):
    to, code, _, _ = run("--model", "meta-llama/Llama-3.1-70B-Instruct,llama-3-70b")
    assert code == 0
    file = results.load(to)
    assert {one.case.model for one in file.measurements if one.case.model} == {"llama-3-70b"}


def test_a_system_whose_gpu_has_no_row(run, tmp_path):
    said = refused(run(system="x9000"), tmp_path)
    assert "system 'x9000': has tables, but specs/gpus.py has no row for its GPU" in said
    assert said.endswith("choose among h200_sxm\n")


def test_a_system_without_a_usable_table(run, data, tmp_path):
    for path in (data / "h200_sxm" / "gemm").rglob("*.parquet"):
        path.write_text("version https://git-lfs.github.com/spec/v1")
    assert "no table gemm/*/*/gemm_perf.parquet that can be used: " in refused(run(), tmp_path)


def test_where_it_cannot_be_written(run, tmp_path):
    assert "a folder; give -o the name of a file in it" in refused(run(to=tmp_path), tmp_path)
    assert "there is no folder" in refused(run(to=tmp_path / "none" / "out.json"), tmp_path)


class TestWithoutAPackage:
    """Looks for the package itself."""

    @pytest.fixture(autouse=True)
    def planted_package(self, tmp_path, monkeypatch):
        self.places = None
        real = util.find_spec

        def find_spec(name, *rest):
            if name != "aiconfigurator_core":
                return real(name, *rest)
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = self.places
            return spec if self.places else None

        monkeypatch.setattr(util, "find_spec", find_spec)
        monkeypatch.setattr(package.metadata, "version", lambda name: {"aiconfigurator-core": "1.2.3"}[name])

    def test_it_is_missing(self, run, tmp_path):
        said = refused(run(), tmp_path)
        assert "aiconfigurator-core is not installed; pip install " in said
        assert "'.[silicon]'" in said

    def test_it_holds_no_tables(self, run, tmp_path):
        self.places = [str(tmp_path)]
        assert "no tables in aiconfigurator-core 1.2.3; install it anew: pip install " in refused(run(), tmp_path)

    def test_a_folder_of_that_name_is_not_the_package(self, run, data, tmp_path, monkeypatch):
        self.places = [str(data.parent.parent)]
        monkeypatch.setattr(package.metadata, "version", lambda _: metadata.distribution("no-such-package").version)
        assert "aiconfigurator-core is not installed; pip install " in refused(run(), tmp_path)

    def test_it_is_found_and_not_run(self, data):
        self.places = [str(data.parent.parent)]
        (data.parent.parent / "__init__.py").write_text("raise RuntimeError")
        assert package.find_package() == package.TablePackage(data, "1.2.3")
        assert [*package.find_package().systems()] == ["h200_sxm", "x9000"]
