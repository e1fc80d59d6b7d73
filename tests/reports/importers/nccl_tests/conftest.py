import pytest

from reports import results
from reports.__main__ import main


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command on these outputs; gives the result file or None, and what was said."""

    def runs(*outputs, options=()):
        sources = [tmp_path / f"{number}.txt" for number in range(len(outputs))]
        for source, content in zip(sources, outputs, strict=True):
            source.write_bytes(content if isinstance(content, bytes) else content.encode())
        to = tmp_path / "out.json"
        with pytest.raises(SystemExit) as caught:
            main(["import", "nccl-tests", *map(str, sources), "-o", str(to), *options])
        said = capsys.readouterr()
        if caught.value.code:
            assert (caught.value.code, said.out) == (2, "")
            assert said.err.startswith("error: ")
            assert said.err.count("\n") == 1
            assert not to.exists()
            return None, said.err
        assert said.err == ""
        return results.load(to), said.out

    return runs
