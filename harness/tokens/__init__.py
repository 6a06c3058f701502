"""Token shards, tokenizers, the byte table and the text they come from. Importing it loads no torch."""
