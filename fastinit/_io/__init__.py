"""Files and texts: strict JSON, TOML and safetensors headers, atomic files and locks, progress, HTML pages, text
for terminals.

`folders.py` knows which files of a folder are a model's, by the names that Hugging Face's libraries give them.

Nothing here knows what a checkpoint, a plan or a probe is. May import `stats`, `_core`, `_runtime`.
Start at `files.put` (a file is complete or not there) and `safetensors.read_header`.
"""
