"""Search pictures in words: grammar -> algebra -> fusion -> ranking -> hits. Loads numpy, pyarrow and FAISS; never torch.

From Python: `query.search` and `query.answer`; `store.Store` and `store.StoreWriter` for the box; `engine.Engine` and
`conformance.check_engine` to add an engine, `fusion.Fusion` and `conformance.check_fusion` to add a way to combine terms. Import from the
modules: this file stays empty, so that importing one loads only what it needs.
"""
