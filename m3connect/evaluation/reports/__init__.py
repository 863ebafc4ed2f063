"""What people and machines read of a measurement.

tables.py   tables and summaries               page.py     the HTML page
files.py    results on disk and back           comparison.py   one model beside another
published.py   the paper's tables, as data in paper/
"""
