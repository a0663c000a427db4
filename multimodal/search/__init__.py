"""Search pictures in words: grammar -> algebra -> store -> hits. Loads numpy, pyarrow and FAISS; never torch.

`query.search` and `query.answer` from Python, `store.Store` and `store.StoreWriter` for the box, `engine.Engine` and
`conformance.check_engine` to bring another engine. Import from the modules; this file stays empty so that each costs only itself.
"""
