"""Looking at results that are there already: what made them, how they differ, many at a glance."""
