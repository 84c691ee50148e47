"""From conversations to token ids and labels."""
