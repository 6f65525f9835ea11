"""Word frequencies: those of wordfreq, or a sentence that says how to get it."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from langcortex.errors import SettingsError
from langcortex.features.controls.frequency import log_frequency
from langcortex.stimulus.story import make_story

ZIPF = {"the": 7.7, "fox": 4.5, "three hundred": 5.0}


def make_words(words):
    n = len(words)
    return make_story({"r": words}, {"r": np.arange(n, dtype=float)}, {"r": np.full(n, 0.5)})


@pytest.fixture
def lists(monkeypatch):
    """Stand in for wordfreq: a list of three words, the rarest used once in ten million."""

    def dictionary(language, wordlist):
        if language == "zh":
            raise ModuleNotFoundError("No module named 'jieba'")
        if language != "en":
            raise LookupError(language)
        return {"the": 10**-1.3, "rare": 1e-7}

    fake = SimpleNamespace(
        get_frequency_dict=dictionary,
        zipf_frequency=lambda word, language, wordlist: ZIPF.get(word.strip(" —"), 0.0),
        available_languages=lambda: {"fr": "", "en": ""},
    )
    monkeypatch.setitem(sys.modules, "wordfreq", fake)


def test_a_word_has_its_zipf_frequency_and_an_unlisted_one_that_of_the_rarest(lists):
    table = log_frequency(make_words(["the", "fox", "zorblax", "three_hundred"]))
    np.testing.assert_allclose(table.values[:, 0], [7.7, 4.5, 2.0, 5.0])
    assert table.combine == "mean"


def test_a_dash_belongs_to_its_word_and_changes_no_frequency(lists):
    np.testing.assert_allclose(log_frequency(make_words(["the", "—", "fox"])).values[:, 0], [7.7, 4.5])


def test_an_unknown_language_is_an_error_that_lists_the_languages(lists):
    with pytest.raises(
        SettingsError, match=r"no list 'best' of the language 'xx'\. Its languages are: en, fr\."
    ):
        log_frequency(make_words(["the"]), language="xx")


def test_a_language_that_needs_another_package_says_so(lists):
    with pytest.raises(
        SettingsError, match=r"needs more to read the language 'zh'.*pip install 'wordfreq\[cjk\]'"
    ):
        log_frequency(make_words(["the"]), language="zh")


def test_without_wordfreq_the_error_is_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(SettingsError, match="Run: pip install wordfreq"):
        log_frequency(make_words(["the"]))


def test_the_real_lists_know_that_the_is_commoner_than_prince_and_prince_than_baobab():
    pytest.importorskip("wordfreq")
    the, prince, baobab, nonsense = log_frequency(make_words(["the", "prince", "baobab", "qzxvq"])).values[
        :, 0
    ]
    assert 7 < the < 8.5
    assert the > prince > baobab > nonsense > 0
