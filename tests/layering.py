"""Who may know whom, as a table, and the checkers that hold every import and every #include to it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The rooms that each room may import, itself aside. "torchp2p" is the package's front door, its __init__.
# A room that is not listed has no place in the house yet: give it one here and in CONTRIBUTING.md.
ROOMS: dict[str, set[str]] = {
    "reference": set(),
    "kernels": set(),
    "_C": set(),
    "files": set(),
    "memory": set(),
    "ops": {"reference", "kernels", "_C"},
    "nn": {"reference", "ops"},
    "fuse": {"ops", "nn"},
    "verify": {"fuse"},
    "export": {"fuse", "nn", "ops", "reference", "files"},
    "models": {"ops", "nn", "fuse", "files"},
    "data": {"files"},
    "train": {"ops", "nn", "fuse", "models", "data", "files", "memory", "torchp2p"},
    "evaluate": {"ops", "nn", "fuse", "models", "data", "files", "torchp2p"},
    "edit": {"ops", "nn", "fuse", "models", "data", "files", "torchp2p"},
    "cli": {
        "ops",
        "nn",
        "fuse",
        "verify",
        "export",
        "models",
        "data",
        "train",
        "evaluate",
        "edit",
        "files",
        "memory",
        "torchp2p",
        "benchmarks",
    },
    "torchp2p": {"ops", "nn", "fuse", "verify", "models", "memory"},
    # Installed with the package, and users of it: anything public.
    "benchmarks": {
        "reference",
        "kernels",
        "ops",
        "nn",
        "fuse",
        "verify",
        "models",
        "data",
        "train",
        "evaluate",
        "export",
        "cli",
        "files",
        "memory",
        "torchp2p",
    },
}

# Importing the package must cost nothing: these rooms know torch (and triton) and nothing else.
CORE = {"reference", "ops", "nn", "fuse", "verify", "kernels", "memory", "torchp2p"}
REQUIRED = {"torch", "numpy", "PIL", "rich", "jsonargparse", "yaml"}
# Optional or slow to import: inside the function that needs them only.
LAZY = {
    "tifffile",
    "skimage",
    "sklearn",
    "tensorboard",
    "imageio",
    "imageio_ffmpeg",
    "torch_fidelity",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "matplotlib",
}
LAZY_SUBMODULES = ("torch.utils.tensorboard", "torch.onnx", "torch.utils.cpp_extension")

# Code of a standard header with out-of-line templates would be emitted once per instruction set under one name.
PLAIN_STANDARD_HEADERS = {
    "cmath",
    "cstddef",
    "cstdint",
    "cstdlib",
    "cstring",
    "initializer_list",
    "limits",
    "type_traits",
    "utility",
}
HEADERS = {
    "include": PLAIN_STANDARD_HEADERS,
    "cpu": PLAIN_STANDARD_HEADERS | {"immintrin.h", "arm_neon.h", "omp.h"},
    "cuda": PLAIN_STANDARD_HEADERS | {"cstdio", "cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h"},
}


@dataclass(frozen=True)
class Import:
    """One imported name; lazy when it is inside a function or for type checkers only."""

    module: str
    line: int
    lazy: bool


# --- Python ----------------------------------------------------------------------------------------------


def imports_of(path: Path, module: str) -> Iterator[Import]:
    """Every import in a file, ``from a import b`` as ``a.b``; relative ones are made absolute."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base])]
                )
            yield from (Import(f"{base}.{alias.name}", node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            first = node.args[0]
            if isinstance(first, ast.Constant):
                yield Import(str(first.value), node.lineno, lazy)
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        for child in ast.iter_child_nodes(node):
            yield from walk(child, lazy or inside)

    return walk(ast.parse(path.read_text(), str(path)), lazy=False)


def python_files(root: Path) -> Iterator[tuple[Path, str]]:
    """Every Python file of the package with its module name; two folders beside it are installed into it."""
    for name in ("", "kernels", "benchmarks"):
        folder, package = (root / name, f"torchp2p.{name}") if name else (root / "torchp2p", "torchp2p")
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield path, ".".join((package, *(part for part in parts if part != "__init__")))


def room_of(module: str) -> str:
    """The room a module of the package is in: the first name below torchp2p, if that is a room."""
    below = module.split(".")[1:]
    return below[0] if below and below[0] in ROOMS else "torchp2p"


def python_faults(root: Path) -> list[str]:
    """What the Python files under ``root`` import that they must not."""
    faults = []
    for path, module in python_files(root):
        place = path.relative_to(root)
        below = module.split(".")[1:]
        if below and below[0] not in ROOMS:
            faults.append(f"{place}: {below[0]} is not a known room")
            continue
        for found in imports_of(path, module):
            reason = fault_of(room_of(module), found)
            if reason:
                faults.append(f"{place}:{found.line}: {reason}")
    return faults


def fault_of(room: str, found: Import) -> str:
    """Why ``room`` may not have this import; empty if it may."""
    top = found.module.split(".")[0]
    if top == "torchp2p":
        other = room_of(found.module)
        if other != room and other not in ROOMS[room]:
            return f"{room} must not know {other} ({found.module})"
        if other == "kernels" and room not in ("kernels", "benchmarks") and not found.lazy:
            return "kernels are imported lazily, inside the function that needs them"
        return ""
    if top in sys.stdlib_module_names:
        return ""
    if top == "triton":
        return "" if room == "kernels" else f"{room} must not know triton: Triton code stands in kernels/"
    if room in CORE:
        return "" if top == "torch" else f"{room} knows torch only, not {top}"
    if top in LAZY or found.module.startswith(LAZY_SUBMODULES):
        return "" if found.lazy else f"{found.module} is imported inside the function that needs it"
    return "" if top in REQUIRED else f"{top} is no dependency of the package"


def bench_faults(root: Path) -> list[str]:
    """Benchmarks use what any user can: public names."""
    faults = []
    for path, module in python_files(root):
        for found in imports_of(path, module) if room_of(module) == "benchmarks" else ():
            parts = found.module.split(".")
            if parts[0] == "torchp2p" and any(part.startswith("_") for part in parts):
                faults.append(f"{path.relative_to(root)}:{found.line}: benchmarks use public names, not {found.module}")
    return faults


# --- C++ -------------------------------------------------------------------------------------------------

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def include_faults(root: Path) -> list[str]:
    """What the files under csrc/ include that they must not."""
    faults = []
    for path in sorted((root / "csrc").rglob("*")):
        if path.suffix not in {".h", ".cpp", ".cu", ".cuh"}:
            continue
        place = path.relative_to(root)
        text = path.read_text()
        for match in INCLUDE.finditer(text):
            reason = include_fault(root, place, quoted=match[1] == '"', header=match[2])
            if reason:
                line = text.count("\n", 0, match.start(2)) + 1
                faults.append(f"{place}:{line}: {reason}")
    return faults


def include_fault(root: Path, place: Path, *, quoted: bool, header: str) -> str:
    """Why the file at ``place`` may not include ``header``; empty if it may."""
    if quoted:
        return quoted_fault(root, place, header)
    room = place.parts[1]
    if room == "bindings":  # headers of the standard library have no dot and no slash
        allowed = re.fullmatch(r"[a-z_]+", header) is not None or header.startswith("pybind11/")
    else:
        allowed = header in HEADERS[room]
    return "" if allowed else f"csrc/{room} must not include <{header}>"


def quoted_fault(root: Path, place: Path, header: str) -> str:
    """Headers of ours: those of the own folder and of csrc/include, and isa.h for module.cpp."""
    beside, public = root / place.parent / header, root / "csrc/include" / header
    found = beside if beside.is_file() else public
    if not found.is_file():
        return f'"{header}" is no header of ours'
    owner = found.resolve().relative_to(root.resolve() / "csrc").as_posix()
    room = place.parts[1]
    if owner.startswith((f"{room}/", "include/")):
        return ""
    if place.name == "module.cpp" and owner == "cpu/isa.h":
        return ""
    return f"csrc/{room} must not include csrc/{owner}"


# --- columns ---------------------------------------------------------------------------------------------

COLUMN = (
    "csrc/include/torchp2p/<op>.h",
    "csrc/cpu/<op>.cpp",
    "csrc/cuda/<op>.cu",
    "csrc/bindings/<op>.cpp",
    "kernels/<op>.py",
    "torchp2p/reference/<op>.py",
    "torchp2p/ops/<op>.py",
    "torchp2p/nn/<op>.py",
    "tests/test_<op>.py",
    "benchmarks/bench_<op>.py",
)
# Ops that have no C++ of their own: conv_norm_act is norm_act's around the vendor's convolution, or Triton's.
COMPOSED = ("conv_norm_act",)


def ops_in(root: Path) -> list[str]:
    """One op is one public file in torchp2p/ops."""
    return sorted(path.stem for path in (root / "torchp2p/ops").glob("[!_]*.py"))


def column_faults(root: Path) -> list[str]:
    """What is missing of the column of each op."""
    exported = {found.module for found in imports_of(root / "torchp2p/nn/__init__.py", "torchp2p.nn")}
    guide = (root / "docs/adding_an_op.md").read_text()
    faults = [f"docs/adding_an_op.md does not mention {place}" for place in COLUMN if place not in guide]
    for op in ops_in(root):
        places = [place for place in COLUMN if not (op in COMPOSED and place.startswith("csrc/"))]
        files = (place.replace("<op>", op) for place in places)
        faults += [f"{op} has no {file}" for file in files if not (root / file).is_file()]
        if not any(name.startswith(f"torchp2p.nn.{op}.") for name in exported):
            faults.append(f"torchp2p/nn/__init__.py exports nothing of torchp2p.nn.{op}")
    return faults
