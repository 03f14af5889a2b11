"""The bench: every codec at every operating point on every item, one row each, on this machine or on many.

    spec.py      "walloc-rgb@effort=9,q=14:98:14" -> operating points
    plan.py      folder and specs -> tasks          manifest.py   what a bench folder is about
    workers.py   tasks -> rows, in this process, in a pool or through dask
    run.py       all of it together
"""
