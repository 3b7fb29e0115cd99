"""Text in, token rows out; noise is never added here.

`corpora` opens text and splits it by document, `store` keeps its tokens on disk, `packing` cuts them into rows, `feed`
hands out batches of them step by step; `streams`, `lanes` and `stream_feed` do the same for text that is never
tokenized as a whole. `mixing` weighs sources, `workers` are the processes that read ahead, `batch` is what a batch is,
`cache` says where files are kept. Only `batch`, `packing`, `pairs` and the feeds import torch.
"""
