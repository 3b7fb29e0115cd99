"""Text in, token rows out; noise is never added here.

`corpora` opens text and splits it by document, `store` keeps its tokens on disk, `packing` cuts them into
rows and batches, `batch` is what a batch is, `cache` says where files are kept. Only `batch` and `packing`
import torch.
"""
