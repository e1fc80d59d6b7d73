import json

import pytest

from reports import results
from reports.__main__ import main


@pytest.fixture
def imported(tmp_path, capsys):
    """Runs an import; gives the printed rows by case, the notes, and the result file."""

    def runs(source, *options, tool="nsys"):
        to = tmp_path / "profile.json"
        with pytest.raises(SystemExit) as caught:
            main(["import", tool, str(source), "-o", str(to), "--format", "json", *map(str, options)])
        said = capsys.readouterr()
        assert (caught.value.code, said.err) in ((0, ""), (None, "")), said.err
        told = json.loads(said.out)
        return {one["case"]: one for one in told["cases"]}, told["notes"], results.load(to)

    return runs


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs an import that has to fail; gives the one line that it says."""

    def runs(source, *options, tool="nsys"):
        to = tmp_path / "profile.json"
        with pytest.raises(SystemExit) as caught:
            main(["import", tool, str(source), "-o", str(to), *map(str, options)])
        said = capsys.readouterr()
        assert (caught.value.code, said.out, to.exists()) == (2, "", False)
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        return said.err

    return runs
