"""Language models need packages of an extra, and say which."""

import importlib.util

import pytest

from langcortex.errors import ModelError
from langcortex.features.models.packages import require_packages


@pytest.mark.parametrize("missing", [("torch",), ("transformers",), ("torch", "transformers")])
def test_a_missing_package_is_one_sentence_with_the_extra(monkeypatch, missing):
    find = importlib.util.find_spec
    require_packages()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    with pytest.raises(ModelError, match=r"pip install 'langcortex\[models\]'") as caught:
        require_packages()
    assert " and ".join(missing) in str(caught.value)
