"""Files appear whole or not at all because one module writes them: this walks the sources and looks for a second."""

import ast
from pathlib import Path

import pytest

import histokin

SOURCES = Path(histokin.__file__).parent
MODULES = sorted(p.relative_to(SOURCES).as_posix() for p in SOURCES.rglob("*.py"))

# Calls that write, and which of their arguments names the file (-1: what stands before the dot).
WRITERS = {
    "write_bytes": -1, "write_text": -1, "touch": -1, "rename": -1, "replace": -1, "symlink_to": -1, "hardlink_to": -1,
    "imwrite": 0, "TiffWriter": 0, "write_table": 1, "save_file": 1, "savez": 0, "savez_compressed": 0, "savefig": 0,
    "copy": 1, "copyfile": 1, "copy2": 1, "copytree": 1, "move": 1, "savetxt": 0, "tofile": 0, "to_csv": 0,
    "NamedTemporaryFile": 0, "mkstemp": 0,
}  # fmt: skip
AMBIGUOUS = {"replace", "copy", "move", "touch"}  # also methods of strings, arrays, cohorts: judged by module
OF_MODULE = {("shutil", "copy"), ("shutil", "move"), ("np", "save"), ("torch", "save"), ("os", "replace"),
             ("os", "rename")}  # fmt: skip


def mode_of(call: ast.Call, position: int) -> str:
    """The mode of an `open`, "r" if none is given, "?" if it is no literal."""
    given = [k.value for k in call.keywords if k.arg == "mode"] + call.args[position : position + 1]
    if not given:
        return "r"
    return given[0].value if isinstance(given[0], ast.Constant) and isinstance(given[0].value, str) else "?"


def target_of(call: ast.Call) -> ast.expr | None:
    """What a call writes to, None if it writes nothing."""
    function = call.func
    if isinstance(function, ast.Name):
        if function.id == "open" and set(mode_of(call, 1)) & set("wax+?"):
            return call.args[0]
        if function.id in {"save_file", "TiffWriter"}:
            return call.args[WRITERS[function.id]]
        return None
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if owner == "artefacts":
        return None
    if function.attr == "open" and owner not in {"os", "Image", "Workspace", "cls", "io"}:
        return function.value if set(mode_of(call, 0)) & set("wax+?") else None
    if (owner, function.attr) == ("h5py", "File"):
        return call.args[0] if set(mode_of(call, 1)) & set("wax+?") else None
    if (owner, function.attr) == ("os", "open"):
        flags = {n.attr for n in ast.walk(call.args[1]) if isinstance(n, ast.Attribute)}
        return call.args[0] if flags != {"O_RDONLY"} else None
    if (owner, function.attr) in OF_MODULE:
        return call.args[1] if owner in {"shutil", "torch", "os"} else call.args[0]
    if function.attr in WRITERS and function.attr not in AMBIGUOUS:
        position = WRITERS[function.attr]
        return function.value if position == -1 else call.args[position]
    return None


def given_out(function: ast.AST) -> set[str]:
    """Names bound by `with writing(...) as name`, by opening such a name, and buffers in memory."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in {"io.BytesIO()", "io.StringIO()"}:
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(function):
        for item in getattr(node, "items", []) if isinstance(node, ast.With) else []:
            call, name = item.context_expr, item.optional_vars
            if not (isinstance(call, ast.Call) and isinstance(name, ast.Name)):
                continue
            is_writing = isinstance(call.func, ast.Name) and call.func.id == "writing"
            target = target_of(call)
            if is_writing or (isinstance(target, ast.Name) and target.id in names):
                names.add(name.id)
    return names


def second_writers(source: str) -> list[str]:
    """The lines of a module that write elsewhere than to a path that `artefacts.writing` gave out."""
    tree = ast.parse(source)
    known = given_out(tree)
    found = []
    for node in ast.walk(tree):
        target = target_of(node) if isinstance(node, ast.Call) else None
        if target is None or (isinstance(target, ast.Name) and target.id in known):
            continue
        found.append(f"{node.lineno}: {ast.unparse(node)[:90]}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_module_but_artefacts_writes_files(module: str) -> None:
    if module == "artefacts.py":
        return
    source = (SOURCES / module).read_text(encoding="utf-8")
    assert second_writers(source) == []


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'w')", "open(path, mode='ab')", "path.open('wb')", "path.open('r+')", "path.write_text('x')",
        "path.write_bytes(b'')", "np.save(path, x)", "torch.save(x, path)", "h5py.File(path, 'w')",
        "h5py.File(path, 'a')",
        "pq.write_table(t, path)", "cv2.imwrite(path, x)", "tifffile.TiffWriter(path)", "save_file(x, path)",
        "shutil.copy(a, path)", "path.rename(other)", "os.replace(a, path)", "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "open(path, how)", "figure.savefig(path)", "array.tofile(path)",
    ],
)  # fmt: skip
def test_the_law_sees_a_second_writer(line: str) -> None:
    assert second_writers(f"def f(path):\n    {line}") != []


@pytest.mark.parametrize(
    "text",
    [
        "with writing(path) as temporary:\n    temporary.write_bytes(b'')",
        "with writing(path) as t, h5py.File(t, 'w') as file:\n    file['a'] = 1",
        "with writing(path) as t, t.open('wb') as file:\n    np.save(file, x)",
        "open(path)", "path.open('rb')", "h5py.File(path, 'r')", "'a'.replace('b', 'c')", "array.copy()",
        "os.open(path, os.O_RDONLY)", "buffer = io.BytesIO()\ntorch.save(x, buffer)",
        "artefacts.write_text(path, 'x')", "write_bytes(path, b'')", "cohort.save(path)",
    ],
)  # fmt: skip
def test_the_law_lets_reading_and_the_one_writer_pass(text: str) -> None:
    assert second_writers(text) == []


def test_every_writer_forces_its_bytes_to_disk_before_the_rename() -> None:
    """fsync of the file, then the rename, then fsync of the folder: in this order in the one function."""
    source = (SOURCES / "artefacts.py").read_text(encoding="utf-8")
    body = ast.unparse(next(n for n in ast.walk(ast.parse(source)) if getattr(n, "name", "") == "writing"))
    order = [body.index(step) for step in ("yield temporary", "os.fsync", "temporary.replace(path)", "_flush_folder")]
    assert order == sorted(order)
