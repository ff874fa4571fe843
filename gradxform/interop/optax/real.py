"""Optax itself, imported when asked for, also where `sys.modules["optax"]` is gradxform; and its
modules as imports: `import gradxform.projections`, `from gradxform.second_order import hvp`.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from importlib.util import spec_from_loader
from types import ModuleType

_hidden: dict[str, ModuleType] = {}  # Optax's modules, while gradxform goes by the name


def real(path: str = "optax") -> ModuleType:
    """A module of Optax by its path.

    Raises:
        ImportError: Optax is not installed, or has no such module.
    """
    if not _stands_in("optax"):
        return importlib.import_module(path)
    if path in _hidden:
        return _hidden[path]
    shown = _taken_out()
    sys.modules.update(_hidden)
    try:
        return importlib.import_module(path)
    finally:
        _taken_out()
        sys.modules.update(shown)


def _stands_in(name: str) -> bool:
    """Whether a package of this name is gradxform."""
    found = sys.modules.get(name)
    return found is not None and found is sys.modules.get("gradxform")


def _taken_out() -> dict[str, ModuleType]:
    """Everything that goes by a name of Optax, no longer among the imported modules."""
    names = [name for name in sys.modules if name.partition(".")[0] == "optax"]
    out = {name: sys.modules.pop(name) for name in names}
    _hidden.update({name: x for name, x in out.items() if x.__name__.startswith("optax")})
    return out


class _Existing(Loader):
    """Puts a module that exists under another name."""

    def __init__(self, module: ModuleType):
        self.module = module

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        sys.modules[module.__name__] = self.module


class Submodules(MetaPathFinder):
    """What is imported from gradxform, or from Optax where gradxform stands in for it: gradxform's
    own modules, and Optax's under those names that gradxform has not.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):
        package, _, rest = name.partition(".")
        if not rest or package not in ("gradxform", "optax") or not _stands_in(package):
            return None
        home = sys.modules[package].__path__
        own = PathFinder.find_spec(f"gradxform.{rest.partition('.')[0]}", home)
        if own and package == "gradxform":
            return None
        try:
            found = importlib.import_module(f"gradxform.{rest}") if own else real(f"optax.{rest}")
        except ModuleNotFoundError:
            if _is_installed():
                return None
            what = f"No module named {name!r}; if it is Optax's: pip install optax"
            raise ModuleNotFoundError(what, name=name) from None
        return spec_from_loader(name, _Existing(found))


def _is_installed() -> bool:
    try:
        return bool(real())
    except ImportError:
        return False


def register() -> None:
    """Let the imports of submodules be found."""
    if Submodules not in sys.meta_path:
        sys.meta_path.insert(0, Submodules)
