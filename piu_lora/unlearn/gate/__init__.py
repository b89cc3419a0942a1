"""gate-encoder: a few neurons of the text encoder become a step that opens for one person and for nobody
else.
"""
