"""The figures: each module measures one, and its docstring says what exactly is timed and why that is fair."""
