"""Presets from Kaggle and the Hugging Face hub, served from the caches of the hubs' own clients.

    HubSource / BuiltInSource      name → verified folder              source.py
      PresetCache                  folders of links, manifests, locks  cache.py
      Fetcher                      attempts, checks, publication       fetcher.py
        FetchProcess               one attempt under limits            process.py
          fetch                    the child process: client, files    fetch.py

Invariants (docs/decisions/0006-fetching-in-a-process.md):
- A folder holds links to allow-listed files of a client's cache (`files.py`) and a manifest.
- Each file is compared with the hub's digest before its first use, and with the manifest at each load.
"""
