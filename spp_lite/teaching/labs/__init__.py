"""The labs of the notebooks, one module per part of the suite; each is a `widgets.Lab` with a pure render."""
