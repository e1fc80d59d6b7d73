import json

import pytest

from specs import privacy
from specs.privacy import Names, here
from tests.reports import planted

ALICE = Names(users=("alice",), hosts=("gpu017.cluster.example", "gpu017"), homes=("/nfs/people/alice",))


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
        ("alice@gpu017: malice, alice_linear, Alice", "<user>@<host>: malice, alice_linear, Alice"),
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
    names = Names(users=(name,), hosts=(f"{name}h",))
    prose = f"a GB/s, 42 x1 s, 4096x4096, 1e-42, n/a, {name} {name}h"
    assert names.text(prose) == prose
    assert names.text(f"/scratch/{name}/tmp /data/{name}h") == "/scratch/<user>/tmp /data/<host>"
    assert names.text(f"{name}@{name}h:22") == "<user>@<host>:22"
    assert names.text(f"{name}/branch") == "<user>/branch"


@pytest.mark.parametrize("name", ["root", "cuda", "torch", "ubuntu", "main", "precision"])
def test_a_name_that_tells_nobody_is_no_name(monkeypatch, name):
    planted_names(monkeypatch, user=name, home=f"/home/{name}", host=name)
    found = here()
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
    found = here()
    assert "alice" in found.users
    assert found.hosts == ("gpu017.cluster.example", "gpu017")
    assert "/nfs/people/alice" in found.homes
    monkeypatch.setenv("MASTER_ADDR", "node-1.cluster")
    assert here().text("cannot reach node-1.cluster") == "cannot reach <host>"


@pytest.mark.parametrize("home", ["/", "", "//"])
def test_a_home_that_is_everywhere_is_none(monkeypatch, home):
    planted_names(monkeypatch, home=home)
    assert here().text("/usr/lib /x") == "/usr/lib /x"


def test_labels_and_numbers_of_a_file_stay_as_they_are_whoever_ran_it():
    """A user who is called like a kernel, an op, a layer and a GPU."""
    case = planted.case("suites/bench_linears.py::bench_decode[linear-qkvs]", kernel="skinny", layer="qkvs")
    content = planted.content([planted.measured(case, 1.0, stopped_by="precision")], machine=planted.H200)
    for name in ("skinny", "linear", "qkvs", "llama", "H200", "suites", "NVIDIA", "planted"):
        assert json.dumps(Names(users=(name,), hosts=(name,)).scrub(content)) == json.dumps(content), name


def test_says_where_a_name_stands():
    content = {"machine_info": {"variables": {"TORCH_HOME": "/home/bob/x"}}, "shardbench": {"not_run": ["a", "gpu017"]}}
    assert list(ALICE.found(content)) == [
        ("machine_info.variables.TORCH_HOME", "/home/bob/x"),
        ("shardbench.not_run[1]", "gpu017"),
    ]
    assert not list(ALICE.found(ALICE.scrub(content)))
