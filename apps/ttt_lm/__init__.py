"""Language models of bytes, trained on text: ``ttt train``, ``ttt generate``, ``ttt compare``. Importing it imports no framework."""
