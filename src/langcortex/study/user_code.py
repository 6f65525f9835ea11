"""Code that a study file names: which, whether it may run, and loading it from a file beside the study."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

from langcortex.errors import LangcortexError, SettingsError
from langcortex.study.settings import Study

VARIABLE = "LANGCORTEX_ALLOW_CODE"
_MODULE = re.compile(r"[A-Za-z_]\w*")


def load_object(spec: str, study: Study) -> Any:
    """Load ``"module:name"`` from a file beside the study.

    Raises
    ------
    SettingsError : the study may not run code, there is no such file, or it cannot be loaded
    """
    file = find_module(spec, Path(study.folder))
    require_permission(study)
    module_name, _, name = spec.partition(":")
    module_spec = importlib.util.spec_from_file_location(f"_study_{module_name}", file)
    if module_spec is None or module_spec.loader is None:
        raise SettingsError(f"{file} cannot be imported.")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses look their module up
    try:
        module_spec.loader.exec_module(module)
    except LangcortexError:
        raise
    except Exception as error:  # a user's module raises errors of any kind
        raise SettingsError(f"'{spec}': {file} cannot be imported ({describe_error(error)}).") from error
    if not hasattr(module, name):
        raise SettingsError(f"'{spec}': {module_name} has nothing called '{name}'.")
    return getattr(module, name)


def describe_error(error: Exception) -> str:
    """Describe an error of a user's code in one line."""
    line = next((text.strip() for text in str(error).splitlines() if text.strip()), "")
    return f"{type(error).__name__}: {line[:160]}" if line else type(error).__name__


def find_module(spec: str, folder: Path) -> Path:
    """Return the file beside a study that ``"module:name"`` names.

    Raises
    ------
    SettingsError : it names anything but a function of a file beside the study
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise SettingsError(f"'{spec}' must name a module and something in it: \"my_module:function\".")
    file = folder / f"{module_name}.py"
    if not _MODULE.fullmatch(module_name) or not name.isidentifier() or not file.is_file():
        example = file if _MODULE.fullmatch(module_name) else folder / "my_module.py"
        raise SettingsError(
            f"'{spec}' is refused: a study file runs code only from a file beside itself, such as {example}. "
            f'Put the function into that file and write "{example.stem}:function".'
        )
    return file


def list_code(study: Study) -> dict[str, str]:
    """List the code that a study file would run: what names it → where it comes from."""
    bands = [name for names in study.partition.bands.values() for name in names]
    options = [str(table.get("control", "")) for table in study.features.options.values()]
    names = [study.data.corpus, study.design.response, *study.features.controls]
    names += [*(study.protocol.confounds or ()), *bands, *options]
    folder = Path(study.folder)
    code = {name: str(find_module(name, folder).resolve()) for name in names if ":" in name}
    return code | {
        f"models.{model.label}.trust_remote_code": f"the model '{model.source}'"
        for model in study.models
        if model.trust_remote_code
    }


def is_allowed(study: Study) -> bool:
    """Return whether the code of a study may run: the caller allowed it, or the environment does."""
    return study.allow_code or os.environ.get(VARIABLE) == "1"


def require_permission(study: Study, command: str = "") -> None:
    """Check that a study runs no code, or may.

    Parameters
    ----------
    study : any
    command : what the user can type to allow the code; how Python allows it when empty

    Raises
    ------
    SettingsError : the study file runs code, and nobody allowed it; or it names code from elsewhere
    """
    code = list_code(study)
    if not code or is_allowed(study):
        return
    listed = ", ".join(f"{place} ('{name}')" for name, place in code.items())
    allow = f"type: {command}" if command else f"read the study with allow_code=True, or set {VARIABLE}=1"
    raise SettingsError(f"This study runs code from {listed}: read it and, if you trust it, {allow}")
