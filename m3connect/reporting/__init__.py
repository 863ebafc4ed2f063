"""What reports are made of, whatever they report.

pages.py   tables, as Markdown and HTML, and the one page that all reports are (page.html.jinja)
charts.py  its charts, as SVG
"""
