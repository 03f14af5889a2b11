"""The report page of a bench: rows in, one self-contained HTML file, static figures and tables out."""
