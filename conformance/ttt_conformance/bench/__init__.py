"""How fast the backends are on this machine, for the shape that counts: ``ttt bench``.

``workload`` says what is called, ``check`` whether an answer is right, which comes first, ``timing`` how long calls take; these need no more
than core, and the kernels' benchmark uses them too. ``contest`` puts them together for a backend and a form.
"""
