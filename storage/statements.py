"""The statements of this package, found in its modules: their names label the metrics, and a test prepares them."""

import importlib
import pkgutil
import re
from typing import Final

_FIRST_WORDS: Final = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE|VALUES)\s")


def statement_names() -> dict[str, str]:
    """Each SQL constant of the storage modules, mapped to its name, for example `leases.ACQUIRE_LEASES`."""
    package = importlib.import_module(__package__)
    names: dict[str, str] = {}
    # Folders below have no SQL, but what not every server needs in memory, such as the client of S3.
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if found.ispkg:
            continue
        module = importlib.import_module(found.name)
        for constant, text in vars(module).items():
            if constant.lstrip("_").isupper() and isinstance(text, str) and _FIRST_WORDS.match(text):
                names.setdefault(text, f"{found.name.removeprefix(package.__name__ + '.')}.{constant.lstrip('_')}")
    return names
