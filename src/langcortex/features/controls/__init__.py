"""Features without a language model: counts, lengths, frequency, position, word vectors, sound."""
