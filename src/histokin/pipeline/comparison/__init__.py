"""`compare`: a plan is checked, every entry trained, every task judged, and a page filled."""
