"""The papers' figures and tables: what is trained for each, what is drawn, and what the paper says.

``declaration`` says what a reproduction is and ``catalogue`` lists them all; ``running`` trains what is missing and
``report`` writes pictures, table and verdict. ``python -m shoal.reproduce --list`` shows them.
"""
