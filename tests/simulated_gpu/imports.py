"""Hooks on imports: a package that is not there, and something done to a module right after it was imported."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from typing import Any


class Lacking(importlib.abc.MetaPathFinder):
    """Refuses to import what the machine to be simulated does not have."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Raise for a missing package and what is in it; leave all others to the next finder."""
        if any(name == one or name.startswith(f"{one}.") for one in self._names):
            raise ModuleNotFoundError(f"No module named {name!r} (not on the simulated machine)", name=name)
        return None


class After(importlib.abc.MetaPathFinder):
    """Calls a function with a module right after its import."""

    def __init__(self, hooks: dict[str, Callable[[Any], None]]) -> None:
        self._hooks = dict(hooks)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of the next finder, its loader wrapped."""
        if name not in self._hooks:
            return None
        hook = self._hooks.pop(name)
        spec = next(
            (one for finder in sys.meta_path if finder is not self and (one := finder.find_spec(name, path, target))),
            None,
        )
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            hook(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
