"""What the text itself says of words: counts, lengths, frequency, position, word vectors, sound."""
