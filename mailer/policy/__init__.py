"""May you? Who may connect (``access``), log in (``auth``), and how much (``limits``)."""
