"""The studio: forgetting seen in the browser. It shows what the jobs do, and computes nothing itself.

``server`` serves, ``page`` lays out, ``pages/`` holds one file a tab, ``work/`` one file for the jobs of a
tab, ``queue`` runs them one at a time, ``visitors`` keeps browsers apart, ``elements`` writes the HTML.
"""
