"""The code blocks of docs/HACKING.md are true: its example component is added to a copy of the tree,
built, listed, documented and put through the contract test; its example test runs there."""

import glob
import os
import re
import shutil
import subprocess

import pytest

from mill import BINARY, ROOT, SANITIZED

HACKING = os.path.join(ROOT, "docs", "HACKING.md")
FOLDERS = (
    "base wire net pipeline blocks receivers processors exporters connectors extensions query cmd "
    "configs docs tests"
).split()
# what a copy needs of build/ so that only what changed is compiled again
BUILT = ("base", "wire", "net", "pipeline", "blocks", "receivers", "processors", "exporters",
         "connectors", "extensions", "query", "cmd", "gen", "tests/contract", "libspanmill.a",
         "spanmill")


def code_block(language):
    """The first block of this language, without its list's indentation."""
    with open(HACKING, encoding="utf-8") as f:
        found = re.search(rf"^([ \t]*)```{language}\n(.*?)^[ \t]*```", f.read(), re.S | re.M)
    assert found, f"docs/HACKING.md has no {language} block"
    indent = found.group(1)
    return "".join(line.removeprefix(indent) for line in found.group(2).splitlines(True))


def copy_tree(to):
    ignore = shutil.ignore_patterns("__pycache__", ".pytest_cache", "node_modules")
    for name in FOLDERS:
        if os.path.isdir(os.path.join(ROOT, name)):
            shutil.copytree(os.path.join(ROOT, name), to / name, ignore=ignore)
    shutil.copy2(os.path.join(ROOT, "Makefile"), to)
    for name in BUILT:
        at = os.path.join(ROOT, "build", name)
        if os.path.isdir(at):
            shutil.copytree(at, to / "build" / name)
        elif os.path.exists(at):
            (to / "build" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(at, to / "build" / name)
    os.symlink(os.path.join(ROOT, "build", "venv"), to / "build" / "venv")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A built copy of the project with the component of HACKING.md in it."""
    if SANITIZED or BINARY != os.path.join(ROOT, "build", "spanmill"):
        pytest.skip("the copy is of the ordinary build")
    to = tmp_path_factory.mktemp("tree")
    copy_tree(to)
    (to / "processors" / "name_filter.c").write_text(code_block("c"), encoding="utf-8")
    with open(to / "processors" / "processors.def", "a", encoding="utf-8") as f:
        f.write("PROCESSOR(name_filter)\n")
    make(to, "all")
    return to


def make(tree, *args):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "-s", "-j2", *args], cwd=tree, env=env, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_component_of_the_docs_is_listed_and_documented(tree):
    done = subprocess.run([tree / "build" / "spanmill", "components"], capture_output=True,
                          text=True, timeout=20, check=True)
    assert "name: name_filter" in done.stdout
    make(tree, "docs")
    assert "| `name` |" in (tree / "docs" / "components" / "name_filter.md").read_text()


def test_the_component_of_the_docs_says_what_is_misspelt(tree, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "receivers: {otlp: {protocols: {grpc: }}}\n"
        "processors: {name_filter: {nam: x}}\n"
        "exporters: {debug: }\n"
        "service: {pipelines: {traces: {receivers: [otlp], processors: [name_filter], "
        "exporters: [debug]}}}\n"
    )
    done = subprocess.run([tree / "build" / "spanmill", "validate", "--config", config],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert f"{config}:2:28: processors.name_filter.nam: " in done.stderr
    assert "name" in done.stderr.split("processors.name_filter.nam: ")[1]


def test_the_component_of_the_docs_passes_the_contract_test(tree):
    program = "build/tests/contract/test_components"
    make(tree, program)
    done = subprocess.run([tree / program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_test_of_the_docs_runs(tree):
    head = "import otlp\nimport tempo\n\n\n"
    (tree / "tests" / "integration" / "test_mine.py").write_text(head + code_block("python"))
    done = subprocess.run(
        [tree / "build" / "venv" / "bin" / "pytest", "-q", "tests/integration/test_mine.py"],
        cwd=tree, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def log_messages():
    """(file, the sentence up to its colon) of every warning and error of the sources."""
    text = r'(?:"(?:[^"\\]|\\.)*"\s*)+'
    call = re.compile(rf"log_(?:warn|error)\(\s*({text}|[^\",]*\?\s*{text}:\s*{text})")
    for folder in FOLDERS[:12]:
        for path in glob.glob(os.path.join(ROOT, folder, "**", "*.c"), recursive=True):
            with open(path, encoding="utf-8") as f:
                for found in call.finditer(f.read()):
                    for literal in re.findall(text, found[1]):
                        sentence = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literal))
                        yield os.path.relpath(path, ROOT), re.split("[:;,]", sentence)[0]


def test_every_message_is_in_operations():
    """docs/operations.md says of every warning and error what to do."""
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as f:
        page = " ".join(f.read().split())
    messages = set(log_messages())
    assert len(messages) > 60
    missing = sorted(f"{path}: {text}" for path, text in messages if text not in page)
    assert not missing, "docs/operations.md does not have:\n" + "\n".join(missing)
