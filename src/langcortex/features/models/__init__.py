"""Features of words from language models: hidden states, attention, surprisal and entropy."""
