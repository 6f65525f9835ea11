"""Words and tokens: every word has its tokens, whatever stands around the text."""

import itertools

import numpy as np
import pandas as pd
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from langcortex.errors import ModelError, SettingsError
from langcortex.features.models.tokens import (
    assign_tokens,
    audit_tokens,
    cut_passages,
    cut_token_windows,
    cut_windows,
    encode_passage,
    make_batches,
    make_frame,
)
from langcortex.stimulus.story import Story, assemble_story, read_story

LEARNT_FROM = [
    "The quick brown fox isn't jumping over 1943 lazy dogs, said the king; he couldn't, wouldn't and shan't.",
    "L'élève n'avait jamais été à l'école : aujourd'hui, c'était différent. « Qu'est-ce que c'est ? »",
    "Why do the stars shine? To let everyone find their own one day. It was 7.30 o'clock!",
] * 3
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _learn(core, trainer):
    core.train_from_iterator(LEARNT_FROM, trainer)
    return core


def llama_3():
    """Byte-level BPE behind Llama 3's own splits, whole words looked up first, BOS in front."""
    core = Tokenizer(models.BPE(ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    special = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    _learn(
        core,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[(special[0], 0)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=special[0],
        eos_token=special[1],
        additional_special_tokens=special[2:],
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    )
    return tokenizer


def gpt_2():
    """Byte-level BPE as in GPT-2; nothing is added."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    core.decoder = decoders.ByteLevel()
    _learn(
        core,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )  # fmt: skip
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def gemma():
    """SentencePiece BPE as in Gemma: spaces become ▁ by a normaliser, unknown characters become bytes."""
    core = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(
        "▁", "merged_with_next"
    )  # SentencePiece learns no piece of two words
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    core = _learn(core, trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>"
    )
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}\n{% endfor %}"
    return tokenizer


def llama_2():
    """SentencePiece unigram as in Llama 2 and T5: a ▁ is put before the first word."""
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core = _learn(
        core,
        trainers.UnigramTrainer(
            vocab_size=150, special_tokens=["<s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="<unk>")


def bert():
    """WordPiece as in BERT: lower-cased, accents taken off, [CLS] in front and [SEP] behind."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    core = _learn(
        core, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


FAMILIES = {f.__name__: f for f in (llama_3, gpt_2, gemma, llama_2, bert)}


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request):
    return FAMILIES[request.param]()


def _story(words, before=None):
    n = len(words)
    table = pd.DataFrame({"word": words, "onset": np.arange(float(n)), "duration": np.ones(n)})
    story = assemble_story({"r": table}, "s", "punctuation", keep_marks=True)
    if before is None:
        return story
    columns = {k: getattr(story, k) for k in ("ids", "text", "onset", "duration", "run", "sentence")}
    return Story("s", before=np.array(["", *before[1:]], dtype=object), **columns)


def _read(story, tokenizer, **options):
    frame = make_frame(tokenizer, "m", **options)
    return [encode_passage(story, a, b, tokenizer, "m", frame) for a, b in cut_passages(story, "sentence")]


# Who owns a token


@st.composite
def _texts(draw):
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    gaps = draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    spans, at = [], 0
    for gap, length in zip(gaps, lengths, strict=True):
        spans.append((at + gap, at + gap + length))
        at += gap + length
    cuts = sorted({0, at, *draw(st.lists(st.integers(0, at), max_size=at))})
    tokens = [(a, b, False) for a, b in itertools.pairwise(cuts)]
    for place in draw(st.lists(st.integers(0, len(tokens)), max_size=2)):
        tokens.insert(place, (0, 0, True))
    return (
        np.array(spans),
        np.array([t[:2] for t in tokens]).reshape(-1, 2),
        np.array([t[2] for t in tokens], dtype=bool),
    )


@given(_texts())
def test_every_word_owns_or_borrows_a_token_and_no_token_is_owned_twice(text):
    spans, offsets, special = text
    owner, lent = assign_tokens(spans, offsets, special)
    borrowers = set(lent[:, 0].tolist())
    assert set(owner[owner >= 0].tolist()) | borrowers == set(range(len(spans)))
    assert not set(owner[owner >= 0].tolist()) & borrowers  # whoever owns a token borrows none
    assert len(borrowers) == len(lent)
    assert (owner[special] == -1).all()
    assert not special[lent[:, 1]].any()
    for t, (a, b) in enumerate(offsets):
        overlap = np.maximum(0, np.minimum(b, spans[:, 1]) - np.maximum(a, spans[:, 0]))
        if special[t] or overlap.max() == 0:
            assert owner[t] == -1
        else:
            assert overlap[owner[t]] == overlap.max()
    for w, t in lent:
        assert min(offsets[t, 1], spans[w, 1]) > max(offsets[t, 0], spans[w, 0])


def test_characters_cut_into_bytes_give_every_byte_to_their_word():
    owner, lent = assign_tokens(
        np.array([[0, 1], [2, 3]]), np.array([[0, 1], [0, 1], [0, 1], [1, 3]]), np.zeros(4, bool)
    )
    assert owner.tolist() == [0, 0, 0, 1]
    assert len(lent) == 0


def test_a_word_without_a_token_is_an_error():
    with pytest.raises(ModelError, match=r"word 1 is covered by no token"):
        assign_tokens(np.array([[0, 2], [3, 5]]), np.array([[0, 2]]), np.zeros(1, bool))


# Families of tokenizers

SEEN = st.sampled_from(
    ["it", "isn't", "l'école", "e\u0301te\u0301", "日本語", "東京", "🙂", "👩‍👩‍👧", "«oui»", '"no"', "19_43", "3.14",
     "…", "—", "naïve", "can", "not", ",", "ﬁn", "İ", "ẞ", "a\u0300\u0301b", "x", "Ω", "don’t", "мир"]
)  # fmt: skip


@given(words=st.lists(SEEN, min_size=1, max_size=8), gaps=st.data())
@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_tokenizer_drops_a_word_or_gives_a_token_to_two(family, words, gaps):
    tokenizer = _family_tokenizer(family)
    before = [gaps.draw(st.sampled_from([" ", "", "  ", " … "])) for _ in words]
    story = _story(words, before)
    try:
        read = _read(story, tokenizer)
    except ModelError:  # BERT's normaliser may take a character away altogether; then it is said
        if family != "bert":
            raise
        return
    counts, _ = audit_tokens(story, read)
    assert counts["words"] == len(words)
    n_tokens = np.zeros(len(words), dtype=int)
    for passage in read:
        word, token = passage.pairs.T
        n_tokens += np.bincount(word, minlength=len(words))
        assert len(set(zip(word.tolist(), token.tolist(), strict=True))) == len(word)
        owners = np.bincount(token, minlength=len(passage.ids))
        # a token is shared only by words that have no other
        for t in np.flatnonzero(owners > 1):
            sharing = word[token == t]
            assert (np.bincount(word, minlength=len(words))[sharing] > 1).sum() <= 1
    assert (n_tokens > 0).all()


_CACHE = {}


def _family_tokenizer(family):
    if family not in _CACHE:
        _CACHE[family] = FAMILIES[family]()
    return _CACHE[family]


def test_words_own_the_tokens_that_spell_them(tokenizer):
    words = ["The", "quick", "fox", "isn't", "jumping", "over", "1943", "dogs."]
    story = _story(words)
    (passage,) = _read(story, tokenizer)
    for i, word in enumerate(words):
        tokens = passage.pairs[passage.pairs[:, 0] == i, 1]
        spelt = tokenizer.decode([passage.ids[t] for t in tokens]).strip().replace(" ", "").replace("##", "")
        assert spelt.lower() == word.lower()


def test_what_a_tokenizer_adds_belongs_to_no_word(tokenizer):
    story = _story(["The", "quick", "fox."])
    (passage,) = _read(story, tokenizer)
    begins, ends = tokenizer.bos_token_id, None
    if tokenizer.cls_token_id is not None:
        begins, ends = tokenizer.cls_token_id, tokenizer.sep_token_id
    adds = tokenizer("a")["input_ids"][0] == begins
    assert passage.head == ([begins] if adds else [])
    assert passage.tail == ([ends] if ends is not None else [])
    assert _read(story, tokenizer, bos=False)[0].head == []
    assert _read(story, tokenizer, bos=True)[0].head == [begins]
    assert _read(story, tokenizer, bos=True)[0].ids == passage.ids


def test_a_tokenizer_that_knows_no_beginning_says_so():
    bare = gpt_2()
    bare.bos_token = None
    with pytest.raises(ModelError, match=r"'m' has no beginning-of-text token. Set bos = false."):
        make_frame(bare, "m", bos=True)


# Arms


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_and_a_suffix_leave_the_words_what_they_were(family):
    story = _story(["The", "quick", "fox", "isn't", "here."])
    (plain,) = _read(story, _family_tokenizer(family))
    (framed,) = _read(story, _family_tokenizer(family), prefix="Read this: ", suffix=" Thank you.")
    decode = _family_tokenizer(family).decode
    for i in range(len(story)):
        spelt = [
            decode([p.ids[t] for t in p.pairs[p.pairs[:, 0] == i, 1]]).strip().replace("##", "")
            for p in (plain, framed)
        ]
        assert spelt[0] == spelt[1]
    assert "this" in decode(framed.head).replace(" ##", "")
    assert "hank" in decode(framed.tail).replace(" ##", "")


@pytest.mark.parametrize("chat", ["user", "assistant"])
def test_a_chat_stands_around_the_same_words(chat):
    tokenizer = _family_tokenizer("llama_3")
    words = ["The", "quick", "fox", "isn't", "user"]
    story = _story(words)
    (plain,) = _read(story, tokenizer)
    (framed,) = _read(story, tokenizer, chat=chat, prefix="Tell a story. ", system="Be kind.")
    head = tokenizer.decode(framed.head)
    assert head.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>")
    assert head.count("<|begin_of_text|>") == 1
    assert f"{chat}<|end_header_id|>" in head
    assert "Tell a story." in head
    assert tokenizer.decode(framed.tail).endswith("<|eot_id|>")
    # a first word behind a space or a newline may be another token; all others are the same
    assert framed.ids[-4:] == plain.ids[-4:]
    assert framed.pairs[-4:, 0].tolist() == plain.pairs[-4:, 0].tolist()
    assert set(framed.pairs[:, 0]) == set(range(len(words)))
    without = _read(story, tokenizer, chat=chat, bos=False)[0]
    assert "<|begin_of_text|>" not in tokenizer.decode(without.head)
    assert _read(story, tokenizer, chat=chat, bos=True)[0].head.count(tokenizer.bos_token_id) == 1


def test_chats_that_cannot_be_are_one_sentence():
    with pytest.raises(ModelError, match=r"The chat template of 'm' cannot be filled"):
        make_frame(_family_tokenizer("gpt_2"), "m", chat="user")
    with pytest.raises(SettingsError, match=r"'user' or the 'assistant', not 'robot'"):
        make_frame(_family_tokenizer("llama_3"), "m", chat="robot")
    with pytest.raises(SettingsError, match=r"system needs a chat. Set features.chat"):
        make_frame(_family_tokenizer("llama_3"), "m", system="Be kind.")
    silent = llama_3()
    silent.chat_template = "{{ bos_token }}nothing of what was said"
    with pytest.raises(ModelError, match=r"does not repeat the story exactly once. Use features.prefix"):
        make_frame(silent, "m", chat="user")
    strict = llama_3()
    strict.chat_template = "{{ raise_exception('no system here') }}"
    with pytest.raises(ModelError, match=r"cannot be filled \(no system here\)"):
        make_frame(strict, "m", chat="user")


def test_a_frame_that_fills_the_model_is_an_error():
    story = _story(["The", "quick", "fox."])
    (passage,) = _read(
        story, _family_tokenizer("gpt_2"), prefix="All of this stands in front of every text. " * 3
    )
    with pytest.raises(SettingsError, match=r"leave the model no room for the story. Shorten them"):
        list(cut_windows(passage, "sentence", 20))


def test_a_frame_stands_in_every_window():
    story = _story(["The", "quick", "brown", "fox", "isn't", "jumping", "over", "dogs."])
    (passage,) = _read(story, _family_tokenizer("llama_3"), prefix="Read: ", suffix=" End.")
    seen = []
    for w in cut_windows(passage, 6, 64):
        assert w.ids[: w.n_head] == passage.head
        assert w.ids[len(w.ids) - len(passage.tail) :] == passage.tail
        seen += [(int(word), w.ids[place]) for word, place in w.pairs[w.new]]
    assert seen == [(int(word), passage.ids[t]) for word, t in passage.pairs]


def test_a_run_too_long_for_the_model_says_what_to_do():
    with pytest.raises(
        SettingsError, match=r"The run has 80 tokens and the model reads at most 60 at once. Use context = 60"
    ):
        list(cut_token_windows(80, "run", 60))
    assert list(cut_token_windows(50, "run", 60)) == [(0, 0, 50)]


@given(st.integers(1, 300), st.integers(2, 64))
def test_windows_read_every_token_once_with_at_least_half_of_the_context(n, limit):
    seen = []
    for start, new, stop in cut_token_windows(n, limit, 64):
        assert stop - start <= limit
        assert new == 0 or new - start >= limit // 2
        seen += range(new, stop)
    assert seen == list(range(n))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120))
def test_batches_hold_every_text_once_and_no_more_tokens_than_allowed(lengths, limit):
    batches = list(make_batches(lengths, limit))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= limit


# The audit


def test_the_audit_names_words_that_share_a_token_and_words_of_many():
    """A word-level tokenizer makes one token of two timed words: neither is dropped."""
    core = Tokenizer(models.WordLevel({"don't": 0, "go": 1, "[UNK]": 2, "x": 3}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    glued = transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    story = _story(["do", "n't", "go"], [" ", "", " "])
    (passage,) = _read(story, glued)
    assert passage.ids == [0, 1]
    assert passage.pairs.tolist() == [[0, 0], [1, 0], [2, 1]]
    counts, odd = audit_tokens(story, [passage])
    assert counts == {
        "words": 3, "tokens": 2, "words of several tokens": 0, "words sharing a token": 1, "tokens of no word": 0,
    }  # fmt: skip
    assert [line.split()[0] for line in odd] == ["r/word-0000", "r/word-0001"]
    assert all(line.endswith("shares a token with a neighbour") for line in odd)
    long = _story(["Donaudampfschifffahrt", "go"])
    _, odd = audit_tokens(long, _read(long, _family_tokenizer("gpt_2")))
    assert len(odd) == 1
    assert odd[0].startswith("r/word-0000 'Donaudampfschifffahrt': ")
    assert odd[0].endswith(" tokens")


# Le Petit Prince


@pytest.mark.parametrize(("language", "n_words"), [("EN", 15453 - 24), ("FR", 15258 - 2)])
@pytest.mark.parametrize("family", ["llama_3", "gpt_2", "gemma", "llama_2"])
def test_every_label_of_le_petit_prince_keeps_its_tokens(shared_data, family, language, n_words):
    files = sorted((shared_data / "lpp" / "annotation" / language).glob("*section*.TextGrid"))
    story = read_story({f"section{i}": path for i, path in enumerate(files, 1)}, sentences="pauses")
    tokenizer = _family_tokenizer(family)
    words = 0
    for run in story.runs:
        part = story.take([run])
        for context in ("sentence", "run"):
            frame = make_frame(tokenizer, family)
            read = [
                encode_passage(part, a, b, tokenizer, family, frame) for a, b in cut_passages(part, context)
            ]
            counts, _ = audit_tokens(part, read)
            pairs = np.concatenate([p.pairs for p in read])
            assert set(pairs[:, 0].tolist()) == set(range(len(part)))
            # joined as French writes them, a few elided words share a token with the next
            assert counts["words sharing a token"] <= {"EN": 0, "FR": 30}[language]
        words += counts["words"]
    assert words == n_words
