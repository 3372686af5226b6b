"""Prints the import graph of a package, or with `--check` fails on an import cycle.

    python -m tools.import_graph [--check] [--root SRC] [PACKAGE]

The first part shows the package's direct children, packages and loose modules, by level: a level is the longest chain
of imports that starts there. The second part shows cycles among all modules. Imports under `TYPE_CHECKING` count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import grimp

ROOT: Final = Path("service")
PACKAGE: Final = "electra_serve"


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of an import graph.

    Attributes:
        imports: The nodes that each node imports.
        levels: The number of nodes on the longest chain of imports from each node; a cycle counts as one.
        cycles: Sets of nodes that all import one another, directly or not.
    """

    imports: Mapping[str, frozenset[str]]
    levels: Mapping[str, int]
    cycles: tuple[frozenset[str], ...]

    def figures(self) -> str:
        """The counts in one line."""
        edges = sum(map(len, self.imports.values()))
        return f"{len(self.imports)}, levels {max(self.levels.values())}, edges {edges}, cycles {len(self.cycles)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both parts; with `--check` only cycles, to standard error, and returns 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", default=PACKAGE, help="the package to read; default: %(default)s")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder that holds it; default: %(default)s")
    parser.add_argument("--check", action="store_true", help="print nothing but cycles; exit 1 if there is one")
    options = parser.parse_args(arguments)
    if not (options.root / options.package / "__init__.py").is_file():
        parser.error(f"--root must be a folder that holds the package {options.package}; got {options.root}")
    children, modules = read_imports(options.root, options.package)
    if options.check:
        lines = [*_cycles(children), *_cycles(modules)]
        sys.stderr.writelines(f"{line}\n" for line in lines)
        return 1 if lines else 0
    print(*report(options.package, children, modules), sep="\n")
    return 0


def read_imports(root: Path, package: str) -> tuple[Summary, Summary]:
    """Reads `package` below `root`, without importing it: its direct children, then all its modules."""
    sys.path.insert(0, str(root))
    try:
        graph = grimp.build_graph(package, cache_dir=None)
    finally:
        sys.path.remove(str(root))
    modules = summarize(graph)
    for child in graph.find_children(package):
        graph.squash_module(child)
    return summarize(graph), modules


def summarize(graph: grimp.ImportGraph) -> Summary:
    """Finds the levels and cycles of a graph."""
    imports = {
        module: frozenset(
            graph.find_modules_directly_imported_by(module) - {module}
        )  # squashing a package leaves an import of itself
        for module in graph.modules
    }
    components = {
        module: frozenset({module} | graph.find_upstream_modules(module) & graph.find_downstream_modules(module))
        for module in graph.modules
    }
    cycles = {component for component in components.values() if len(component) > 1}
    return Summary(imports, _levels(imports, components), tuple(sorted(cycles, key=sorted)))


def _levels(imports: Mapping[str, frozenset[str]], components: Mapping[str, frozenset[str]]) -> dict[str, int]:
    below = {
        component: {components[imported] for module in component for imported in imports[module]} - {component}
        for component in components.values()
    }
    levels: dict[frozenset[str], int] = {}
    for component in TopologicalSorter(below).static_order():
        levels[component] = 1 + max((levels[imported] for imported in below[component]), default=0)
    return {module: levels[component] for module, component in components.items()}


def report(package: str, children: Summary, modules: Summary) -> Iterator[str]:
    """Lays both summaries out, line by line; names are relative to `package`."""
    yield f"{package}: packages and loose modules {children.figures()}"
    for module in sorted(children.imports, key=lambda name: (children.levels[name], name)):
        imported = " ".join(_relative(name, package) for name in sorted(children.imports[module]))
        yield f"{children.levels[module]:4}  {_relative(module, package)}" + (f" → {imported}" if imported else "")
    yield from _cycles(children)
    yield f"{package}: modules {modules.figures()}"
    yield from _cycles(modules)


def _relative(module: str, package: str) -> str:
    return module.removeprefix(f"{package}.")


def _cycles(summary: Summary) -> Iterator[str]:
    return (f"import cycle: {' '.join(sorted(cycle))}" for cycle in summary.cycles)


if __name__ == "__main__":
    sys.exit(main())
