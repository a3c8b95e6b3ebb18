"""The examples of the README and of `docs` run as they stand there."""

import glob
import os
import re
import sys

import pytest
from conftest import ROOT, run_command, run_python, run_script


def examples(path):
    with open(path, encoding="utf-8") as file:
        return re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)


# Its programs need Dask: `tests/clusters/test_guide.py` runs them.
ELSEWHERE = {"dask.md"}
PAGES = sorted(glob.glob(os.path.join(ROOT, "docs", "**", "*.md"), recursive=True))
PAGES = [path for path in PAGES if os.path.basename(path) not in ELSEWHERE]
PAGES.append(os.path.join(ROOT, "README.md"))
EXAMPLES = {
    "%s-%d" % (os.path.basename(path)[:-3], number): code
    for path in PAGES
    for number, code in enumerate(examples(path))
}


def test_there_are_examples():
    """On each page that shows how something is done."""
    assert len(EXAMPLES) >= 35
    shown = {os.path.basename(path) for path in PAGES if examples(path)}
    moving = {os.path.basename(path) for path in PAGES if "moving-from-" in path}
    assert shown >= moving | set(
        "README.md arena.md arrays.md camera.md containers.md functions.md many-workers.md "
        "named-arrays.md notebooks.md old-interpreters.md queues.md ring-buffers.md "
        "shared-memory.md start.md unrelated-programs.md".split()
    )


START = 'if __name__ == "__main__":\n'


@pytest.mark.parametrize(
    "which, method",
    # Under spawn those that start a process.
    [(which, "fork") for which in EXAMPLES]
    + [(which, "spawn") for which, code in EXAMPLES.items() if START in code],
)
def test_example(which, method, tmp_path):
    """A comment behind a ``print`` says what it prints."""
    # Others may run this test on the same machine.
    code = EXAMPLES[which].replace("readme-weights", "readme-weights-%d" % os.getpid())
    code = code.replace('"weights" in', '"weights-%d" in' % os.getpid())
    if method == "spawn":
        choice = '    import multiprocessing; multiprocessing.set_start_method("spawn")\n'
        code = code.replace(START, START + choice)
    process = run_script(tmp_path, code)
    assert process.returncode == 0 and process.stderr == "", process.stderr
    expected = [
        line.split("#")[1].strip()
        for line in code.split("\n")
        if line.lstrip().startswith("print(") and "#" in line
    ]
    assert process.stdout.split("\n")[:-1] == expected


def test_demo():
    output = run_python(
        "import sys; sys.argv[1:] = ['demo', '--frames', '2', '--side', '300']\n"
        "from shared_numpy.__main__ import main\n"
        "main()"
    )
    assert "ratio" in output and "nothing is left behind" in output
    # Each figure is explained by an indented line, and the times are shown as bars.
    blocks = output.split("\n\n")[1:]
    assert len(blocks) == 6 and all("\n  " in block for block in blocks)
    for block in blocks[:3]:
        bars = [line for line in block.splitlines() if line[-1] in "#█▏▎▍▌▋▊▉"]
        assert len(bars) >= 2, block


def test_the_command_line_refuses_nonsense():
    for arguments in (["demo", "--frames", "0"], ["demo", "--side", "x"], ["nonsense"], []):
        process = run_command([sys.executable, "-m", "shared_numpy"] + arguments)
        assert process.returncode == 2
        assert "Traceback" not in process.stderr
