"""Presets from Kaggle and the Hugging Face hub, kept in a cache that is checked each time it is used.

    HubSource / BuiltInSource      a name → a checked folder             source.py
      PresetCache                  where folders, references, locks are  cache.py
      Fetcher                      attempts, back-off, check, publish    fetcher.py
        FetchProcess               one attempt, under a deadline         process.py
          fetch                    the other process: a client, files    fetch.py

The hubs' own clients do the fetching, in a process of their own: kagglehub has no timeout, both start threads that
the interpreter waits for at exit, and a process can be ended at its deadline whatever it hangs in. It also keeps
both clients out of the service's memory.

What holds:
- A folder in the cache is whole: files are fetched into a staging folder, checked, and then put in place by one rename.
- A folder without a manifest, or one that differs from it by a byte, a file more or a file less, is never used.
- File names come from an allow-list (`files.py`), never from a hub. Of what a fetched file names only shards are
  followed, and only right beside it.
"""
