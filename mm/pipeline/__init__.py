"""--mode=tokenize: a source and its tokenizers -> aligned shards of tokens, by as many workers as there are.

plan.py   what is made, and whether a folder may be gone on with
work.py   one shard, all modalities of it: a function of the plan and the shard's number
run.py    what is left to do, who does it, the manifest
beam.py   Apache Beam's part: many workers; nothing else imports it
"""
