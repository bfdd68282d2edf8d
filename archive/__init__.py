"""Read an archive of recordings, put the results into tables, compare two models over them, and tell drift.

In: folders, lists and addresses of recordings, and a model. Out: a folder with a manifest, results and tables.
Must not know: training, export, the command line. Reading itself is the runtime's; Ray and processes only spread it.
"""
