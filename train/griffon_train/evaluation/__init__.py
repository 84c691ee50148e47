"""Ask a model: generation, the parsing of answers, and scores."""
