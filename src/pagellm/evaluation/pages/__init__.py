"""What composed pages are worth: one value a page for each measure, and the judge that compares the pages of several methods."""
