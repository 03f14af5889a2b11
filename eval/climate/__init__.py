"""The bench of gridded fields, `make bench-climate`.

    coders.py    ours and the peers at one operating point     measure.py   one field through one of them: a row
    tables.py    rows -> figures and tables
"""
