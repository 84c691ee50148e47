"""Tokenization of conversations: chat templates, token ids and labels."""
