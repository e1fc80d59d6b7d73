import json
import re

import pytest

from reports.archive import entries
from specs import privacy
from specs.privacy import Identity, current_identity
from tests.reports import planted

ALICE = Identity(users=("alice",), hosts=("gpu017.cluster.example", "gpu017"), homes=("/nfs/people/alice",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("TRITON_HOME=/nfs/people/alice/.triton", "TRITON_HOME=~/.triton"),
        ("/nfs/people/alice", "~"),
        ("no /nfs/people/alice.", "no /nfs/people/<user>."),  # the dot could go on as a name
        ("/nfs/people/alice2/x", "/nfs/people/alice2/x"),  # somebody else's, in no folder known for homes
        ("/scratch/alice/cache:/opt/lib", "/scratch/<user>/cache:/opt/lib"),
        ("/home/bob/x and /Users/carol", "/home/<user>/x and /Users/<user>"),
        ("C:\\Users\\dave\\shardbench", "C:\\Users\\<user>\\shardbench"),
        ("File '/root/.cache/a.py', line 3", "File '~/.cache/a.py', line 3"),
        ("alice/faster-gemm", "<user>/faster-gemm"),
        ("alice-shardbench", "<user>-shardbench"),
        ("alice@gpu017: malice, alice_linear, Alice", "<user>@<host>: malice, <user>_linear, <user>"),
        ("/tmp/torchinductor_alice/x, ALICE_tmp", "/tmp/torchinductor_<user>/x, <user>_tmp"),
        ("torchinductor_alice in ib_gpu017", "torchinductor_<user> in ib_<host>"),
        ("gpu017_ib GPU017 gpu017-ib0", "<host>_ib <host> <host>-ib0"),
        ("file:///nfs/people/alice/out, file:///home/bob/x", "file://~/out, file:///home/<user>/x"),
        ("MY_USER=bob NODELIST='n1 n2' CPUHOST=1", "MY_USER=<user> NODELIST=<host> CPUHOST=1"),
        ("connect gpu017.cluster.example:29500", "connect <host>:29500"),
        ("rank 3 on gpu017", "rank 3 on <host>"),
        ("gpu0170 gpu017x", "gpu0170 gpu017x"),
        ("tcp://10.1.2.3:29500 [10.1.2.3]:80", "tcp://<address>:29500 [<address>]:80"),
        ("127.0.0.1:29500, cublas 13.1.0.3", "127.0.0.1:29500, cublas 13.1.0.3"),
    ],
)
def test_names_go_wherever_they_can_stand(text, told):
    assert ALICE.text(text) == told
    assert ALICE.text(told) == told


@pytest.mark.parametrize("name", ["a", "s", "x1", "42"])
def test_a_short_name_goes_from_paths_and_addresses_and_leaves_units_and_prose(name):
    names = Identity(users=(name,), hosts=(f"{name}h",))
    prose = f"a GB/s, 42 x1 s, 4096x4096, 1e-42, n/a, {name} {name}h"
    assert names.text(prose) == prose
    assert names.text(f"/scratch/{name}/tmp /data/{name}h") == "/scratch/<user>/tmp /data/<host>"
    assert names.text(f"{name}@{name}h:22") == "<user>@<host>:22"
    assert names.text(f"{name}/branch") == "<user>/branch"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/scratch/ann_tmp/x", "/scratch/<user>_tmp/x"),
        ("/scratch/job-ann-12, /tmp/torchinductor_ann", "/scratch/job-<user>-12, /tmp/torchinductor_<user>"),
        ("fatal: users/ann/fix has moved", "fatal: users/<user>/fix has moved"),
        ("feature/ann", "feature/<user>"),
        ("~ann/x and ~/ann", "~<user>/x and ~/<user>"),
        ("/scratch/anna/x.ann", "/scratch/anna/x.ann"),
        ("/data/g7 on g7_ib", "/data/<host> on g7_ib"),
        ("ann of a cat, annex, GB/ann_s", "ann of a cat, annex, GB/<user>_s"),
    ],
)
def test_a_short_name_goes_from_parts_of_a_path(text, told):
    names = Identity(users=("ann",), hosts=("g7",))
    assert names.text(text) == told
    assert names.text(told) == told


@pytest.mark.parametrize("name", ["us", "ms", "gb"])
def test_who_is_called_like_a_unit_spoils_no_rate(name):
    prose = "3 GB/s, 12 tokens/us, 5 bytes/ms, flops/gb"
    assert Identity(users=(name,), hosts=(name,)).text(prose) == prose


@pytest.mark.parametrize("name", ["needs", "ranks", "highest", "will", "tokens", "write", "gemm"])
def test_who_is_called_like_a_word_spoils_no_sentence_and_leaves_paths(name):
    names = Identity(users=(name,))
    prose = "needs 2 ranks, the highest will do: 3 tokens/s, read/write, skinny_gemm, Will"
    assert names.text(prose) == prose
    ours = f"File 'kernels/{name}/x.py'"
    assert names.text(ours) == ours
    assert names.text(f"/scratch/{name}_tmp, /data/{name}") == "/scratch/<user>_tmp, /data/<user>"
    assert names.text(f"{name}@there ~{name}/x users/{name}/fix") == "<user>@there ~<user>/x users/<user>/fix"
    assert names.scrub({"branch": f"{name}-fix"}) == {"branch": "<user>-fix"}


def test_whoever_is_called_like_a_word_of_a_committed_file_leaves_it_sound():
    contents = [json.loads(path.read_text()) for path in sorted(entries.DATA_FOLDER.glob("*.json"))]
    told = {(place, text) for content in contents for place, text in texts(content)}
    words = {word for _, text in told for word in re.findall(r"[A-Za-z]{4,}", text)}
    short = {word for _, text in told for word in re.findall(r"(?<![A-Za-z0-9])[a-z0-9]{1,3}(?![A-Za-z0-9])", text)}
    assert "highest" in words
    assert "ms" in short or "tp" in short or "1" in short
    telling = [word for word in words if word.lower() not in privacy.IMPERSONAL_NAMES]
    spoilt = {word for word in (*telling, *short) for _, text in told if Identity(users=(word,)).text(text) != text}
    assert not spoilt


def texts(value, key=""):
    """The texts of a JSON value that are looked through, with their keys."""
    if isinstance(value, str):
        yield key, value
    for name, one in value.items() if isinstance(value, dict) else ():
        if name not in privacy.EXEMPT_KEYS:
            yield from texts(one, name)
    for one in value if isinstance(value, list) else ():
        yield from texts(one, key)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("OMPI_MCA_USER", "<user>"),
        ("OMPI_MCA_plm_rsh_user", "<user>"),
        ("UCX_LOGNAME", "<user>"),
        ("TORCH_USERNAME", "<user>"),
        ("GLOO_HOST", "<host>"),
        ("NCCL_HOSTNAME", "<host>"),
        ("SLURM_NODELIST", "<host>"),
    ],
)
def test_a_variable_that_names_somebody_loses_its_value(variable, told):
    content = {"variables": {variable: "rack[7-9],bob"}}
    assert Identity().scrub(content) == {"variables": {variable: told}}
    assert [place for place, _ in Identity().find_names(content)] == [f"variables.{variable}"]
    assert not list(Identity().find_names(Identity().scrub(content)))


def test_a_variable_that_only_sounds_like_it_keeps_its_value():
    content = {
        "variables": {"NCCL_CROSSHOST": "1", "TORCH_USERS": "4"},
        "hosts": 2,
        "host": "x",
        "ended": {"user": "y"},
    }
    assert Identity().scrub(content) == content


@pytest.mark.parametrize("name", ["root", "cuda", "torch", "ubuntu", "main", "precision"])
def test_a_name_that_tells_nobody_is_no_name(monkeypatch, name):
    planted_names(monkeypatch, user=name, home=f"/home/{name}", host=name)
    found = current_identity()
    assert name not in (*found.users, *found.hosts)
    assert found.text(f"/usr/local/{name}/lib, {name} 13.0") == f"/usr/local/{name}/lib, {name} 13.0"
    assert found.text(f"/home/{name}/x") == "~/x"


def planted_names(monkeypatch, user="alice", home="/nfs/people/alice", host="gpu017.cluster.example"):
    for variable in ("LOGNAME", "USERNAME", *privacy.HOST_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("USER", user)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(privacy.platform, "node", lambda: host)


def test_the_names_are_those_of_the_environment_and_the_host_in_both_forms(monkeypatch):
    planted_names(monkeypatch)
    found = current_identity()
    assert "alice" in found.users
    assert found.hosts == ("gpu017.cluster.example", "gpu017")
    assert "/nfs/people/alice" in found.homes
    monkeypatch.setenv("MASTER_ADDR", "node-1.cluster")
    assert current_identity().text("cannot reach node-1.cluster") == "cannot reach <host>"


@pytest.mark.parametrize("home", ["/", "", "//"])
def test_a_home_that_is_everywhere_is_none(monkeypatch, home):
    planted_names(monkeypatch, home=home)
    assert current_identity().text("/usr/lib /x") == "/usr/lib /x"


def test_labels_and_numbers_of_a_file_stay_as_they_are_whoever_ran_it():
    """A user who is called like a kernel, an op, a layer and a GPU."""
    case = planted.case("suites/bench_linears.py::bench_decode[linear-qkvs]", kernel="skinny", layer="qkvs")
    content = planted.content([planted.measured(case, 1.0, stopped_by="precision")], machine=planted.H200)
    for name in ("skinny", "linear", "qkvs", "llama", "H200", "suites", "NVIDIA", "planted"):
        assert json.dumps(Identity(users=(name,), hosts=(name,)).scrub(content)) == json.dumps(content), name


def test_says_where_a_name_stands():
    content = {"machine_info": {"variables": {"TORCH_HOME": "/home/bob/x"}}, "shardbench": {"not_run": ["a", "gpu017"]}}
    assert list(ALICE.find_names(content)) == [
        ("machine_info.variables.TORCH_HOME", "/home/bob/x"),
        ("shardbench.not_run[1]", "gpu017"),
    ]
    assert not list(ALICE.find_names(ALICE.scrub(content)))
