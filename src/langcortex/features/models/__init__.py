"""What language models say of words: loading, tokens, hidden states, attention, next-word predictions."""
