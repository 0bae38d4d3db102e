"""Generated requests to a generated app, through the whole filter, against a model.

``plans`` says what a client sends and what the app answers, ``strategies``
draws such plans, ``origin`` is the app, and ``oracle`` carries them out and
knows which answers are right.
"""
