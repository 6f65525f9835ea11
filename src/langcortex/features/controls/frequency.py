"""Word frequency in a language."""

from __future__ import annotations

import re

import numpy as np

from langcortex.errors import SettingsError
from langcortex.features.pieces import fill_with_run_mean, tabulate_words
from langcortex.features.table import Features
from langcortex.stimulus.story import Story


def log_frequency(story: Story, *, language: str = "en", wordlist: str = "best") -> Features:
    """Compute the Zipf frequency of each word: log10 of its occurrences per billion words, merged by the mean.

    Frequencies come from wordfreq (Speer 2022, doi:10.5281/zenodo.7199437): "the" is near 7.7. A word that is not in
    its list is as rare as the rarest word there; a label without letter or digit has the mean of its run.

    Parameters
    ----------
    language : code of a language, e.g. "en", "fr", "zh"
    wordlist : "best", "large" or "small"

    Raises
    ------
    SettingsError : wordfreq is not installed, or has no such language or list
    """
    try:
        import wordfreq
    except ModuleNotFoundError as error:
        raise SettingsError(
            "log_frequency looks words up in wordfreq, which is not installed. Run: pip install wordfreq"
        ) from error
    try:
        rarest = 9 + np.log10(min(wordfreq.get_frequency_dict(language, wordlist).values()))
        zipf = {
            word: wordfreq.zipf_frequency(word.replace("_", " "), language, wordlist)
            for word in dict.fromkeys(map(str, story.text))
        }
    except LookupError as error:
        languages = ", ".join(sorted(wordfreq.available_languages()))
        raise SettingsError(
            f"wordfreq has no list '{wordlist}' of the language '{language}'. Its languages are: {languages}."
        ) from error
    except ModuleNotFoundError as error:  # Chinese, Japanese and Korean are cut into words by other packages
        raise SettingsError(
            f"wordfreq needs more to read the language '{language}' ({error}). Run: pip install 'wordfreq[cjk]'"
        ) from error
    values = [max(zipf[w], rarest) if re.search(r"[^\W_]", w) else np.nan for w in map(str, story.text)]
    return tabulate_words(
        "log_frequency", story, fill_with_run_mean(np.array(values)[:, None], story, "a letter or digit")
    )
